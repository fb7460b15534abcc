"""What training a model of rides has in common: which rides it learns from, and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl

from braidstream import FeatureSet, Matrix, Scorer, SettingsError, load_model, logs, training
from braidstream.cli import in_sentences
from braidstream.training import ModelCard, folder_of, is_model, read_card
from producer.trips import Trips, read_trips, rides
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted

_FILE = click.Path(path_type=Path)
_CHUNK = 5_000


@dataclass(frozen=True)
class RideTask:
    """Something to be predicted when a ride starts, and learned from rides that ended.

    `outcome` and `counts` are expressions over the columns of `producer.trips.Trips.rides`, read with outcomes: what
    was to be predicted, in `unit`, and whether a ride is one to learn from and to measure on; `rides` says the latter
    in words. An outcome above `outcome_limit` is learned as `outcome_limit`, and measured as it is.
    """

    name: str
    unit: str
    rides: str
    outcome: pl.Expr
    counts: pl.Expr
    features: FeatureSet[RideStarted]
    estimator: Any
    outcome_limit: float = float("inf")

    def outcomes(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rides that count, in their order, with a further column `outcome`."""
        return frame.with_columns(outcome=self.outcome).filter(self.counts)

    def train(self, trips: Trips, folder: Path, *, earliest: float = 1.0, replace: bool = False) -> ModelCard:
        """Train on the earliest share of the trips and write the model; the trips must be read with outcomes.

        Raises `SettingsError` when too few rides count, or the folder is there already and `replace` is false.
        """
        known = self.outcomes(earliest_share(trips.rides, earliest))
        if known.height < training.MIN_ROWS:
            raise SettingsError(
                f"{known.height} of {trips.rides.height} rides are {self.rides}, which is too few to train "
                f"{self.name}: at least {training.MIN_ROWS} are needed"
            )
        pickups = known["pickup_at"]
        return training.train(
            self.name,
            self.estimator,
            self.features,
            training.TrainingData(self._matrix(known), known["outcome"].to_numpy(), pickups[0], pickups[-1]),
            folder,
            schema_id=RIDES.subjects.event_type.latest.local_id,
            target_limit=self.outcome_limit,
            replace=replace,
        )

    def evaluate(self, trips: Trips, uri: str) -> dict[str, float]:
        """The errors (`rmse`, `mae`) of a stored model on trips that were read with outcomes."""
        known = self.outcomes(trips.rides)
        if known.is_empty():
            raise SettingsError(f"none of {trips.rides.height} rides is one of {self.rides}: nothing to measure on")
        model = load_model(uri, train_with=f"python -m consumers.{self.name}.train --trips FILE")
        scorer = Scorer(model, self.features)
        predicted = np.concatenate([scorer(list(rides(part))) for part in known.iter_slices(_CHUNK)])
        return training.errors(known["outcome"].to_numpy(), predicted)

    def _matrix(self, frame: pl.DataFrame) -> Matrix:
        return np.concatenate([self.features.matrix(list(rides(part))) for part in frame.iter_slices(_CHUNK)])


def earliest_share(frame: pl.DataFrame, share: float) -> pl.DataFrame:
    """The first rides, as many as this share of all of them; `frame` is in the order of pickups."""
    return frame.head(round(frame.height * share))


def training_command(task: RideTask) -> click.Command:
    """The command line that trains and evaluates one model: `python -m consumers.<name>.train`."""

    @click.command(help=_help(task))
    @click.option(
        "--trips", "trips", multiple=True, type=_FILE, metavar="FILE", help="A month to train on; repeatable."
    )
    @click.option(
        "--model-uri",
        envvar="MODEL_URI",
        show_envvar=True,
        default=f"models/{task.name}",
        show_default=True,
        help="The folder of the model.",
    )
    @click.option("--force", is_flag=True, help="Replace a model that is there already.")
    @click.option(
        "--earliest",
        type=click.FloatRange(0, 1, min_open=True),
        default=1.0,
        metavar="SHARE",
        help="Train on this share of the trips only, the earliest ones.",
    )
    @click.option("--evaluate", multiple=True, type=_FILE, metavar="FILE", help="Measure the model on another month.")
    def command(
        *, trips: tuple[Path, ...], model_uri: str, force: bool, earliest: float, evaluate: tuple[Path, ...]
    ) -> None:
        if not trips and not evaluate:
            raise click.UsageError("Give --trips FILE to train, or --evaluate FILE to measure the model that is there.")
        logs.configure("info", "auto")
        with in_sentences(click.get_current_context()):
            if trips:
                _train(task, trips, folder_of(model_uri), force=force, earliest=earliest)
            if evaluate:
                errors = task.evaluate(read_trips(evaluate, outcomes=True), model_uri)
                click.echo(f"{task.name} on {', '.join(map(str, evaluate))}: {_in_words(task, errors)}")

    return command


def _train(task: RideTask, files: Sequence[Path], folder: Path, *, force: bool, earliest: float) -> None:
    if is_model(folder) and not force:
        card = read_card(folder)
        click.echo(f"{folder} holds {card.name} {card.version} already; --force trains it again, on these files")
        return
    card = task.train(read_trips(files, outcomes=True), folder, earliest=earliest, replace=force)
    click.echo(
        f"{task.name} {card.version} trained on {card.data.rows:,} rides ({task.rides}) and written to {folder}, "
        f"served by {'ONNX Runtime' if card.served_by == 'onnx' else 'scikit-learn'}"
    )
    click.echo(f"{task.name} on the latest 20 % of them, held out: {_in_words(task, card.metrics)}")


def _in_words(task: RideTask, errors: Any) -> str:
    return f"RMSE {errors['rmse']:.2f} {task.unit}, MAE {errors['mae']:.2f} {task.unit}"


def _help(task: RideTask) -> str:
    module = f"python -m consumers.{task.name}.train"
    return f"""Train the {task.name} model on months of TLC trips (green or yellow, parquet or csv).

    It learns from {task.rides}. A model that is there already is kept, unless --force.

    \b
    Examples:
      {module} --trips green_tripdata_2023-01.parquet
      {module} --trips 2023-01.parquet --trips 2023-02.parquet --force
      {module} --evaluate green_tripdata_2023-02.parquet
    """
