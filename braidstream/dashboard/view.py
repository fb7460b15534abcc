"""What a dashboard shows: figures and records, whoever they were found by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from schemas.decision import Decision

_DECISIONS_IN_JSON = 10


@dataclass(frozen=True)
class TopicRow:
    """A topic: records a second of late, and records so far; None where that is not known.

    `is_alarming` is for records that there should not be.
    """

    name: str
    rate: float | None
    total: int | None
    is_alarming: bool = False


@dataclass(frozen=True)
class GroupRow:
    """A consumer group, the records that it has still to process, and its members if they are known."""

    name: str
    lag: int
    members: int | None = None


@dataclass(frozen=True)
class Latency:
    """Percentiles in milliseconds."""

    p50: float
    p99: float

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Latency | None:
        """Those of what was measured; None when that is nothing."""
        if not milliseconds:
            return None
        p50, p99 = np.percentile(milliseconds, [50, 99])
        return cls(round(float(p50), 1), round(float(p99), 1))


@dataclass(frozen=True)
class View:
    """A pipeline at one moment; None is what is not known.

    `open_decisions` is a count when `open_is_exact`, else an estimate. `partial` is the share of the latest decisions
    in which a model is missing. `decisions` are the latest ones, newest first. `totals_are_offsets` where
    what lies between records counts among them. `note` is what happened last, `problem` why what is shown may be old.
    """

    title: str
    at: datetime
    topics: tuple[TopicRow, ...]
    groups: tuple[GroupRow, ...]
    open_decisions: int | None
    open_is_exact: bool
    latency: Latency | None
    partial: float | None
    decisions: tuple[Decision, ...]
    totals_are_offsets: bool = False
    note: str | None = None
    problem: str | None = None


def partial_share(decisions: Iterable[Decision]) -> float | None:
    """The share of the decisions in which a model is missing; None when there are none."""
    complete = [decision.complete for decision in decisions]
    return 1 - sum(complete) / len(complete) if complete else None


def as_json(view: View) -> dict[str, Any]:
    """The view for `json.dumps`, without its title, and with the 10 latest decisions; latencies are in milliseconds."""
    latency = view.latency
    return {
        "at": view.at.isoformat(timespec="milliseconds"),
        "topics": [
            {
                "name": topic.name,
                "rate": _rounded(topic.rate, 1),
                "offsets" if view.totals_are_offsets else "total": topic.total,
            }
            for topic in view.topics
        ],
        "groups": [asdict(group) for group in view.groups],
        "open": {"decisions": view.open_decisions, "exact": view.open_is_exact},
        "latency_ms": asdict(latency) if latency is not None else None,
        "partial": _rounded(view.partial, 4),
        "decisions": [decision.model_dump(mode="json") for decision in view.decisions[:_DECISIONS_IN_JSON]],
        "note": view.note,
        "problem": view.problem,
    }


def _rounded(number: float | None, digits: int) -> float | None:
    return None if number is None else round(number, digits)
