"""What `braidstream new consumer` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel

from braidstream.cli.examples import example_of
from braidstream.columns import field_types
from braidstream.errors import SettingsError
from braidstream.pipelines import Pipeline

OUTCOME = "outcome"
"""The column that a new consumer learns to predict."""

_NUMBERS = frozenset({"int", "float", "bool"})
_LARGEST = float(np.finfo(np.float32).max)

_FEATURES = Template('''\
"""What the model $name is given to see of an event."""

$imports

NAMES = $names


def build(events: Columns) -> Matrix:
    """$rows"""
    columns = [$column for name in NAMES]
    return np.column_stack(columns).astype(np.float32)


FEATURES: FeatureSet[$event] = FeatureSet(NAMES, build)
''')

_TRAIN = Template('''\
"""`python -m $name.train FILE`: train the model on events whose outcome is known."""

$imports

if __name__ == "__main__":
    run_training(
        $pipeline,
        "$name",
        FEATURES,
        HistGradientBoostingRegressor(random_state=0),
        outcome="$outcome",
    )
''')

_MAIN = Template('''\
"""The worker of the model $name: `python -m $name`."""

$imports

if __name__ == "__main__":
    run_scorer(
        $pipeline,
        "$name",
        FEATURES,
        train_with="python -m $name.train FILE",
    )
''')

_TEST = Template('''\
"""The consumer $name against a given event, on a broker in memory."""

$imports

EVENT = $event.model_validate_json(r"""
$example
""")


def test_the_features_of_an_event() -> None:
    [row] = FEATURES.matrix([EVENT])

    assert dict(zip(NAMES, row.tolist(), strict=True)) == {
$values
    }


def test_an_event_gives_a_prediction() -> None:
    kit = ScorerKit(
        $pipeline,
        predict=lambda events: FEATURES.matrix(events)[:, 0].tolist(),
        model="$name",
    )

    predictions = kit.send(EVENT)

    assert kit.dead_letters == []
    [prediction] = predictions
    assert prediction.subject_id == $subject
    assert prediction.value == $value
''')


class _Choice(NamedTuple):
    """The fields that become features, their kind, how one becomes a column, and what the rows hold in words."""

    fields: tuple[str, ...]
    kind: str
    column: str
    rows: str

    def value(self, event: BaseModel, field: str) -> float:
        """The feature of an event, as it is in the matrix; raises `SettingsError` where that is no finite number."""
        value = getattr(event, field)
        number = len(value) if isinstance(value, str) else value
        if number is None or not abs(number) <= _LARGEST:
            raise SettingsError(f"{field} is {value} in the example, and the test compares it: give it another value")
        return float(np.float32(number))


def consumer_files(name: str, address: str, pipeline: Pipeline[Any], example: Mapping[str, Any]) -> Mapping[str, str]:
    """The files of the package by their names, for a pipeline at this `module:ATTRIBUTE`.

    `example` are fields of an event that the test sends; what it lacks is made up. Raises `SettingsError` when the
    event has nothing to be a feature, or no example of it can be made up.
    """
    model, key = pipeline.subjects.event_type.model, pipeline.subjects.key
    choice = _choice(model, key)
    has_text_key = _kinds(model)[key] == "str"
    event = example_of(model, {**({key: "one"} if has_text_key else {}), **example})
    module, _, attribute = address.partition(":")
    here, given = (module, attribute), (model.__module__, model.__name__)
    own = (f"{name}.features", "FEATURES")
    values = {field: choice.value(event, field) for field in choice.fields}
    words = {
        "name": name,
        "pipeline": attribute,
        "event": model.__name__,
        "outcome": OUTCOME,
        "subject": f"EVENT.{key}" if has_text_key else f"str(EVENT.{key})",
        "names": _tuple(choice.fields),
        "column": choice.column,
        "rows": choice.rows,
        "example": json.dumps(event.model_dump(mode="json"), indent=4),
        "values": "\n".join(f'        "{field}": {value!r},' for field, value in values.items()),
        "value": repr(values[choice.fields[0]]),
    }
    columns = [("braidstream", kind) for kind in ("Columns", "FeatureSet", "Matrix")]
    estimator = ("sklearn.ensemble", "HistGradientBoostingRegressor")
    kit = ("braidstream.testing", "ScorerKit")
    imports = {
        _FEATURES: ("features.py", [("numpy", ""), *columns, given]),
        _TRAIN: ("train.py", [estimator, ("braidstream.training", "run_training"), here, own]),
        _MAIN: ("__main__.py", [("braidstream", "run_scorer"), here, own]),
        _TEST: (f"test_{name}.py", [kit, here, given, own, (own[0], "NAMES")]),
    }
    files = {file: text.substitute(words, imports=_imports(found, name)) for text, (file, found) in imports.items()}
    return {"__init__.py": "", **files}


def left_out(pipeline: Pipeline[Any]) -> str:
    """A sentence on the fields, besides the key, that are no features of a new consumer; empty when all are."""
    model, key = pipeline.subjects.event_type.model, pipeline.subjects.key
    choice = _choice(model, key)
    others = [field for field in model.model_fields if field not in {key, *choice.fields}]
    return f"Not among its features, being no {choice.kind}: {', '.join(others)}." if others else ""


def _kinds(model: type[BaseModel]) -> Mapping[str, str]:
    return {field: known.kind for field, known in (field_types(model) or {}).items()}


def _choice(model: type[BaseModel], key: str) -> _Choice:
    kinds = {field: kind for field, kind in _kinds(model).items() if field != key}
    if numbers := tuple(field for field, kind in kinds.items() if kind in _NUMBERS):
        return _Choice(
            numbers, "number", "events[name]", "One row an event, one column a name; NaN for what is missing."
        )
    if texts := tuple(field for field, kind in kinds.items() if kind == "str"):
        return _Choice(
            texts,
            "text",
            '[len(text or "") for text in events[name]]',
            "One row an event: how long each text is, in characters.",
        )
    raise SettingsError(f"{model.__name__} has no number and no text besides its key that could be a feature")


def _tuple(names: tuple[str, ...]) -> str:
    """A tuple of texts as it is formatted in code."""
    lines = "".join(f'\n    "{name}",' for name in names)
    return f"({lines}\n)" if len(names) > 1 else f'("{names[0]}",)'


def _imports(names: list[tuple[str, str]], package: str) -> str:
    """Import statements in the order of isort; what is in this folder comes last."""
    found: dict[str, set[str]] = {}
    for module, name in names:
        found.setdefault(module, set()).add(name)
    own = {module for module in found if _is_of_this_folder(module.partition(".")[0], package)}
    sections = [sorted(found.keys() - own, key=lambda module: (module != "numpy", module)), sorted(own)]
    return "\n\n".join("\n".join(_import(module, found[module]) for module in part) for part in sections if part)


def _is_of_this_folder(top: str, package: str) -> bool:
    return top == package or Path(top).is_dir() or Path(f"{top}.py").is_file()


def _import(module: str, names: set[str]) -> str:
    if module == "numpy":
        return "import numpy as np"
    ordered = sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    untyped = "  # type: ignore[import-untyped]" if module.startswith("sklearn") else ""
    return f"from {module} import {', '.join(ordered)}{untyped}"
