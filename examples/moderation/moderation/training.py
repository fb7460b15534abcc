"""What training the models has in common: a fit, thresholds chosen for a precision, the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import click
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from sklearn.base import clone

from braidstream import FeatureSet, Matrix, logs
from braidstream.cli import in_sentences
from braidstream.training import ModelCard, TrainingData, is_model, read_card, threshold_for_precision, train
from moderation.pipeline import MODERATION

E = TypeVar("E", bound=BaseModel)

_CHOSEN_FROM, _CHOSEN_TO = 0.6, 0.8
"""Thresholds are chosen on the examples between these shares, by a model of those before, and measured on the rest."""


class Examples(NamedTuple, Generic[E]):
    """What a model learns from, in the order of time: `target` is 1 or 0 for each of the events."""

    events: Sequence[E]
    target: NDArray[np.float64]
    earliest: datetime
    latest: datetime


class Trained(NamedTuple):
    """A model that was written, and the thresholds that were chosen."""

    card: ModelCard
    thresholds: Mapping[str, float]


@dataclass(frozen=True)
class Task(Generic[E]):
    """Something to be predicted, and how.

    `precision` is, for each threshold, the share of the positive that is asked for among what is at or above it;
    `configured` are the thresholds that are in use. `trusted` names types of this package that the model is made of.
    """

    name: str
    features: FeatureSet[E]
    estimator: Any
    examples: Callable[[], Examples[E]]
    precision: Mapping[str, float]
    configured: Mapping[str, float]
    trusted: Sequence[str] = ()

    def train(self, folder: Path, *, replace: bool = False) -> Trained:
        """Train, and write the model; its card has what each threshold gives on the latest 20 % of the examples.

        Raises `SettingsError` when the folder is there already and `replace` is false, and when no threshold has the
        precision that is asked for.
        """
        examples = self.examples()
        matrix = self.features.matrix(examples.events)
        thresholds = self._thresholds(matrix, examples.target)
        card = train(
            self.name,
            self.estimator,
            self.features,
            TrainingData(matrix, examples.target, examples.earliest, examples.latest),
            folder,
            schema_id=MODERATION.subjects.event_type.latest.local_id,
            thresholds=thresholds,
            held_out=1 - _CHOSEN_TO,
            trusted=self.trusted,
            replace=replace,
        )
        return Trained(card, thresholds)

    def _thresholds(self, matrix: Matrix, target: NDArray[np.float64]) -> dict[str, float]:
        begin, end = (round(share * len(target)) for share in (_CHOSEN_FROM, _CHOSEN_TO))
        fitted = clone(self.estimator).fit(matrix[:begin], target[:begin])
        probability = fitted.predict_proba(matrix[begin:end])[:, 1]
        return {
            name: ceil(100 * threshold_for_precision(target[begin:end], probability, precision)) / 100
            for name, precision in self.precision.items()
        }

    def report(self, trained: Trained) -> list[str]:
        """What came of a training, in words."""
        metrics, thresholds = trained.card.metrics, trained.thresholds
        lines = [
            f"{self.name} {trained.card.version} trained on {trained.card.data.rows:,} made examples; on the latest "
            f"20 % of them, held out: average precision {metrics['average_precision']:.3f}, "
            f"Brier score {metrics['brier']:.4f}"
        ]
        for name, threshold in thresholds.items():
            lines.append(
                f"{name} at {threshold:g}, chosen for a precision of {self.precision[name]:g}: there precision "
                f"{metrics[f'precision_{name}']:.3f}, recall {metrics[f'recall_{name}']:.3f}"
            )
            if self.configured[name] != threshold:
                lines.append(
                    f"{name.upper()}_AT is {self.configured[name]:g} for {self.name} unless it is set otherwise"
                )
        return lines


def training_command(task: Task[Any]) -> click.Command:
    """The command line that trains one model: `python -m moderation.<name>.train`."""

    @click.command(
        help=f"""Train the {task.name} model on made examples, and choose its thresholds.

        A model that is there already is kept, unless --force.
        """
    )
    @click.option(
        "--model-uri",
        envvar="MODEL_URI",
        show_envvar=True,
        type=click.Path(path_type=Path),
        default=f"models/{task.name}",
        show_default=True,
        help="The folder of the model.",
    )
    @click.option("--force", is_flag=True, help="Replace a model that is there already.")
    def command(*, model_uri: Path, force: bool) -> None:
        logs.configure("warning", "auto")
        with in_sentences(click.get_current_context()):
            if is_model(model_uri) and not force:
                version = read_card(model_uri).version
                click.echo(f"{model_uri} holds {task.name} {version} already: nothing to do (--force trains it again)")
                return
            for line in task.report(task.train(model_uri, replace=force)):
                click.echo(line)

    return command
