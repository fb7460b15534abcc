"""What the demo says at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from braidstream.demo import Seen, Tally, line, tally
from consumers.duration.train import DURATION
from consumers.ride_training import RideTask
from consumers.tip.train import TIP

TASKS = (DURATION, TIP)


@dataclass(frozen=True)
class ModelError:
    """How far a model was off, over `rides` rides that it was not trained on; `rmse` is None when there were none."""

    rmse: float | None
    rides: int


@dataclass(frozen=True)
class Summary:
    """What came of the rides that were sent."""

    figures: Tally
    rejected: int
    errors: Mapping[str, ModelError]

    @property
    def failure(self) -> str | None:
        """What to say when not every ride was decided."""
        return self.figures.failure("rides")

    def as_json(self) -> dict[str, object]:
        """The summary as `--json` prints it."""
        return {
            "rides": self.figures.sent,
            "rejected": self.rejected,
            **self.figures.as_json(),
            "error": {f"{task.name}_rmse_{task.unit}": self.errors[task.name].rmse for task in TASKS},
        }

    def as_lines(self) -> list[str]:
        """The summary for people."""
        sent = line("rides sent", f"{self.figures.sent:,}   ({self.rejected:,} rows of the input were no ride)")
        return [
            sent,
            *self.figures.as_lines("ride"),
            *(_error_line(task, self.errors[task.name]) for task in TASKS),
        ]


def _error_line(task: RideTask, error: ModelError) -> str:
    if error.rmse is None:
        text = "not measured: the model was trained on all these rides"
    else:
        text = f"RMSE {error.rmse:.2f} {task.unit}   ({error.rides:,} {task.rides}, none trained on)"
    return line(f"error, {task.name}", text)


def summarize(
    sent: pl.DataFrame, sent_at: Mapping[str, float], rejected: int, seen: Seen, untrained: Mapping[str, pl.Expr]
) -> Summary:
    """The summary of a run.

    `sent` are the rides that were sent, with outcomes, and `sent_at` when each was; `untrained` selects, by model,
    the rides that it was not trained on.
    """
    return Summary(
        figures=tally(sent_at, seen),
        rejected=rejected,
        errors={task.name: _error(task, sent.filter(untrained[task.name]), seen) for task in TASKS},
    )


def _error(task: RideTask, rides: pl.DataFrame, seen: Seen) -> ModelError:
    predicted = seen.predictions[task.name]
    known = task.outcomes(rides).filter(pl.col("ride_id").is_in(list(predicted)))
    if known.is_empty():
        return ModelError(None, 0)
    off = np.array([predicted[ride] for ride in known["ride_id"]]) - known["outcome"].to_numpy()
    return ModelError(round(float(np.sqrt(np.mean(off**2))), 3), known.height)
