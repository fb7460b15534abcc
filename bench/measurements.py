"""What the benchmark writes down: figures of one subject in one run, and the arithmetic on them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braidstream.errors import SettingsError

Figures = dict[str, float]


@dataclass(frozen=True)
class Measurement:
    """The figures of one subject in one run of one part; runs count from 0."""

    part: str
    subject: str
    run: int
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of what was measured."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Report:
    """A whole benchmark: where, with what and when it ran, and every run's figures."""

    context: Mapping[str, Any]
    measurements: list[Measurement]

    def save(self, path: Path) -> None:
        """Write the report as JSON."""
        content = {**self.context, "measurements": [asdict(measurement) for measurement in self.measurements]}
        path.write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read what `save` wrote; raises `SettingsError` when it is something else."""
        try:
            content = json.loads(path.read_text())
            return cls(content, [Measurement(**item) for item in content.pop("measurements")])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SettingsError(f"{path} is no report of the benchmark: {error!r}") from error


def by_run(measurements: Iterable[Measurement], part: str, subject: str, figure: str) -> dict[int, float]:
    """One figure of one subject, by run."""
    return {
        m.run: m.figures[figure]
        for m in measurements
        if m.part == part and m.subject == subject and figure in m.figures
    }


def ratios(over: Mapping[int, float], under: Mapping[int, float]) -> list[float]:
    """The ratios run by run, of the runs that both have: noise that both met cancels out."""
    return [over[run] / under[run] for run in sorted(over.keys() & under.keys())]


def rate_after(stamps: NDArray[np.int64], share: float) -> tuple[float, float, float]:
    """Records a second after the first `share` of them, by their times in milliseconds; and from when to when.

    What came in the very millisecond where the time begins was made before it, and does not count.
    """
    ordered = np.sort(stamps)
    start, end = int(ordered[int(len(ordered) * share)]), int(ordered[-1])
    if end == start:
        raise SettingsError(f"{len(stamps):,} records came within a millisecond: measure more (--rides)")
    return float((ordered > start).sum()) * 1000 / (end - start), start / 1000, end / 1000


def require_counts(seen: NDArray[np.int64], expected: int, times: int, *, exactly: bool) -> None:
    """Check that each of the rides 0 to `expected` was seen `times` times, or at least as often.

    Raises `SettingsError` otherwise: what lost or repeated a ride has no speed.
    """
    counts = np.bincount(seen, minlength=expected)
    wrong = counts != times if exactly else counts < times
    if len(counts) > expected or wrong.any():
        ride = int(np.argmax(wrong)) if wrong.any() else len(counts) - 1
        raise SettingsError(
            f"{int(wrong.sum()):,} of {expected:,} rides are not there {times} times, "
            f"first ride {ride}: {int(counts[ride])} times"
        )


def percentiles(milliseconds: NDArray[np.float64]) -> Figures:
    """p50, p99 and p99.9 of latencies."""
    p50, p99, p999 = np.percentile(milliseconds, [50, 99, 99.9])
    return {"p50_ms": float(p50), "p99_ms": float(p99), "p99_9_ms": float(p999)}
