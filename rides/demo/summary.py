"""What the demo says at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from consumers.duration.train import DURATION
from consumers.ride_training import RideTask
from consumers.tip.train import TIP
from rides.demo.watch import Seen

TASKS = (DURATION, TIP)


@dataclass(frozen=True)
class ModelError:
    """How far a model was off, over `rides` rides that it was not trained on; `rmse` is None when there were none."""

    rmse: float | None
    rides: int


@dataclass(frozen=True)
class Summary:
    """The figures of one run; latencies in milliseconds from sending a ride to reading its decision."""

    rides: int
    rejected: int
    predictions: Mapping[str, int]
    complete: int
    partial: int
    missing: int
    actions: Mapping[str, int]
    dead_letters: int
    p50: float | None
    p99: float | None
    errors: Mapping[str, ModelError]

    @property
    def ok(self) -> bool:
        """Whether every ride was decided."""
        return self.missing == 0

    def as_json(self) -> dict[str, object]:
        """The summary as `--json` prints it."""
        return {
            "rides": self.rides,
            "rejected": self.rejected,
            "predictions": dict(self.predictions),
            "decisions": {"complete": self.complete, "partial": self.partial, "missing": self.missing},
            "latency_ms": {"p50": self.p50, "p99": self.p99},
            "error": {f"{task.name}_rmse_{task.unit}": self.errors[task.name].rmse for task in TASKS},
        }

    def as_lines(self) -> list[str]:
        """The summary for people."""
        counts = "   ".join(f"{model} {count:,}" for model, count in self.predictions.items())
        actions = "   ".join(f"{action} {count:,}" for action, count in sorted(self.actions.items()))
        latency = "not measured" if self.p50 is None else f"p50 {self.p50:,.0f} ms   p99 {self.p99:,.0f} ms"
        lines = [
            f"rides sent        {self.rides:,}   ({self.rejected:,} rows of the input were no ride)",
            f"predictions       {counts}",
            f"decisions         complete {self.complete:,}   partial {self.partial:,}   missing {self.missing:,}",
            f"                  {actions}",
            f"dead letters      {self.dead_letters:,}",
            f"ride to decision  {latency}",
        ]
        return lines + [_error_line(task, self.errors[task.name]) for task in TASKS]


def _error_line(task: RideTask, error: ModelError) -> str:
    start = f"error, {task.name}".ljust(18)
    if error.rmse is None:
        return f"{start}not measured: the model was trained on all these rides"
    return f"{start}RMSE {error.rmse:.2f} {task.unit}   ({error.rides:,} {task.rides}, none trained on)"


def summarize(
    sent: pl.DataFrame, sent_at: Sequence[float], rejected: int, seen: Seen, untrained: Mapping[str, pl.Expr]
) -> Summary:
    """The summary of a run.

    `sent` are the rides that were sent, with outcomes, and `sent_at` when each was; `untrained` selects, by model,
    the rides that it was not trained on.
    """
    ids = sent["ride_id"].to_list()
    decided = [seen.decisions[ride] for ride in ids if ride in seen.decisions]
    took = [
        (seen.decided_at[ride] - at) * 1000 for ride, at in zip(ids, sent_at, strict=True) if ride in seen.decided_at
    ]
    p50, p99 = (round(float(q), 1) for q in np.percentile(took, [50, 99])) if took else (None, None)
    return Summary(
        rides=len(ids),
        rejected=rejected,
        predictions={model: sum(ride in values for ride in ids) for model, values in seen.predictions.items()},
        complete=sum(decision.complete for decision in decided),
        partial=sum(not decision.complete for decision in decided),
        missing=len(ids) - len(decided),
        actions=seen.actions(),
        dead_letters=seen.dead_letters,
        p50=p50,
        p99=p99,
        errors={task.name: _error(task, sent.filter(untrained[task.name]), seen) for task in TASKS},
    )


def _error(task: RideTask, rides: pl.DataFrame, seen: Seen) -> ModelError:
    predicted = seen.predictions[task.name]
    known = task.outcomes(rides).filter(pl.col("ride_id").is_in(list(predicted)))
    if known.is_empty():
        return ModelError(None, 0)
    off = np.array([predicted[ride] for ride in known["ride_id"]]) - known["outcome"].to_numpy()
    return ModelError(round(float(np.sqrt(np.mean(off**2))), 3), known.height)
