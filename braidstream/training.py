"""Making models: what an application's training needs, and what it may want to know of a model that is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from braidstream import logs
from braidstream.avro import E
from braidstream.cli import in_sentences
from braidstream.errors import FatalError, SettingsError
from braidstream.event_files import History, read_history
from braidstream.models.features import FeatureSet, Matrix
from braidstream.models.folder import ModelCard, folder_of, is_model, read_card
from braidstream.models.measures import errors, probability_measures, threshold_for_precision
from braidstream.models.training import MIN_ROWS, TrainingData, train
from braidstream.pipelines import Pipeline

__all__ = [
    "MIN_ROWS",
    "ModelCard",
    "TrainingData",
    "errors",
    "folder_of",
    "is_model",
    "probability_measures",
    "read_card",
    "run_training",
    "threshold_for_precision",
    "train",
]

_FILE = click.Path(path_type=Path)


def run_training(
    pipeline: Pipeline[E],
    model: str,
    features: FeatureSet[E],
    estimator: Any,
    *,
    outcome: str,
    thresholds: Mapping[str, float] | None = None,
    trusted: Sequence[str] = (),
) -> None:
    """Run the command that trains a model from files of events whose outcome is known. Exits the process.

    A file is parquet, CSV or NDJSON. Its columns are the fields of the pipeline's event, and `outcome`, the number to
    learn; its rows are in the order of time, since the latest are held out to measure on. The model is written to
    `models/<model>` or MODEL_URI, where `run_scorer` looks. `thresholds` and `trusted` are as for `train`.
    """
    event_type = pipeline.subjects.event_type

    def fit(history: History[E], folder: Path, replace: bool) -> ModelCard:
        return train(
            model,
            estimator,
            features,
            TrainingData(_matrix(model, features, history.events), history.outcomes),
            folder,
            schema_id=event_type.latest.local_id,
            thresholds=thresholds,
            trusted=trusted,
            replace=replace,
        )

    _command(model, event_type.model, outcome, fit)()


def _matrix(model: str, features: FeatureSet[E], events: Sequence[E]) -> Matrix:
    try:
        return features.matrix(events)
    except FatalError as error:
        raise SettingsError(f"{model} cannot be trained: {error}") from error


def _command(
    model: str, event: type[E], outcome: str, fit: Callable[[History[E], Path, bool], ModelCard]
) -> click.Command:
    @click.command(help=_help(event, model, outcome))
    @click.argument("files", nargs=-1, required=True, type=_FILE, metavar="FILE...")
    @click.option(
        "--model-uri",
        envvar="MODEL_URI",
        show_envvar=True,
        default=f"models/{model}",
        show_default=True,
        help="The folder of the model.",
    )
    @click.option("--force", is_flag=True, help="Replace a model that is there already.")
    def command(files: tuple[Path, ...], model_uri: str, force: bool) -> None:
        logs.configure("info", "auto")
        with in_sentences(click.get_current_context()):
            folder = folder_of(model_uri)
            if is_model(folder) and not force:
                card = read_card(folder)
                click.echo(
                    f"{folder} holds {card.name} {card.version} already; --force trains it again, on these files"
                )
                return
            history = _read(event, files, outcome, model)
            _tell(fit(history, folder, force), folder)

    return command


def _read(event: type[E], files: Sequence[Path], outcome: str, model: str) -> History[E]:
    history = read_history(event, files, outcome)
    if history.skipped:
        click.echo(f"rows without {outcome}, left out: {history.skipped:,}")
    if len(history.events) < MIN_ROWS:
        raise SettingsError(f"{len(history.events)} rows are too few to train {model}: {MIN_ROWS} are the least")
    return history


def _tell(card: ModelCard, folder: Path) -> None:
    measures = ", ".join(f"{name} {value:.3g}" for name, value in card.metrics.items())
    click.echo(f"{card.name} {card.version} trained on {card.data.rows:,} events and written to {folder}")
    click.echo(f"on the latest 20 % of them, held out: {measures}")


def _help(event: type[BaseModel], model: str, outcome: str) -> str:
    return f"""Train the model {model} on files of events whose {outcome} is known: parquet, CSV or NDJSON.

    The columns are {", ".join(event.model_fields)}, and {outcome}; the rows are in the order of time. A model that is
    there already is kept, unless --force.
    """
