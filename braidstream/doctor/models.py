"""Are the models there, and can they be served?"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from braidstream.avro import LocalSchemas
from braidstream.doctor.case import Case
from braidstream.doctor.findings import Finding, ok, warning, wrong
from braidstream.errors import SettingsError
from braidstream.models.folder import is_model
from braidstream.models.loading import UntrustedTypesError, load_model

CHECK = "models"


def names_in(folder: Path) -> list[str]:
    """The models that are in `models/`."""
    return sorted(path.name for path in (folder / "models").glob("*") if is_model(path))


def examine(case: Case, served: Collection[str]) -> Iterator[Finding]:
    """The model of MODEL_URI, or those in `models/` and those expected; `served` have workers already."""
    if case.settings.model_uri:
        yield _model(case, case.settings.model_uri, None)
        return
    there = names_in(case.folder)
    for name in there:
        yield _model(case, str(Path("models") / name), name)
    for name in case.settings.expected_models:
        if name not in there and name not in served:
            yield warning(
                CHECK, f"there is no model {name} in models/ here, and no worker serves it", *case.train(name)
            )
    if not there and not case.settings.expected_models:
        yield ok(CHECK, "none is here, in models/, and EXPECTED_MODELS is not set here: nothing to check")


def _model(case: Case, uri: str, name: str | None) -> Finding:
    try:
        model = load_model(str(case.folder / uri) if name else uri)
    except UntrustedTypesError:
        return ok(CHECK, f"{uri} can be checked by its own worker only, which trusts its types")
    except SettingsError as error:
        return wrong(CHECK, str(error), *(case.train(name) if name else ()))
    if name is not None and model.name != name:
        return wrong(CHECK, f"{uri} holds the model {model.name}: the worker of {name} refuses it", *case.train(name))
    if LocalSchemas(case.pipeline.subjects.event_type).schema(model.card.schema_id) is None:
        return warning(
            CHECK,
            f"{uri} was trained on events of a schema that is not among the versions of {case.pipeline.subjects.name} "
            "here: its features may mean something else",
            *(case.train(name) if name else ()),
        )
    return ok(CHECK, f"{uri}: {model.name} {model.version}, {len(model.features)} features, {model.card.served_by}")
