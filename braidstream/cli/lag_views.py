"""What groups have not processed yet, as people and programs read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from braidstream.cli.groups import Group, Lag, Snapshot
from braidstream.cli.records import iso

COLUMNS: Sequence[str] = ("GROUP", "TOPIC", "LAG", "BEHIND", "MEMBERS", "STATE")
PARTITION_COLUMNS: Sequence[str] = ("GROUP", "TOPIC", "PART", "COMMITTED", "LAG", "BEHIND", "MEMBER")

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def summary(seen: Snapshot) -> Iterator[tuple[str, ...]]:
    """One text for each of `COLUMNS`, a row for each group and topic."""
    for group, topic, rows in seen.by_topic():
        members = "?" if group.members is None else str(_readers(group, topic))
        gone = "; records are gone" if any(row.gap is not None for row in rows) else ""
        yield group.name, topic, f"{_records(rows):,}", span(_seconds(rows, seen.at)), members, f"{group.state}{gone}"


def partitions(seen: Snapshot) -> Iterator[tuple[str, ...]]:
    """One text for each of `PARTITION_COLUMNS`, a row for each group and partition."""
    for lag in seen.lags:
        committed = "-" if lag.committed is None else str(lag.committed)
        yield (
            lag.group,
            lag.partition.topic,
            str(lag.partition.number),
            committed,
            "gone" if lag.gap is not None else f"{lag.records:,}",
            span(lag.seconds(seen.at)),
            "-" if lag.member is None else f"{lag.member.host} {_short(lag.member.id)}",
        )


def as_json(seen: Snapshot, *, detailed: bool) -> dict[str, Any]:
    """For `json.dumps`; with every partition and member where it is to be detailed."""
    found: list[dict[str, Any]] = []
    for group, rows in groupby(seen.by_topic(), key=lambda row: row[0]):
        topics = [_topic_json(seen, group, topic, lags, detailed=detailed) for group, topic, lags in rows]
        count = None if group.members is None else len(group.members)
        one: dict[str, Any] = {"group": group.name, "state": group.state, "members": count, "topics": topics}
        if detailed:
            one["member_list"] = [
                {"id": member.id, "client": member.client, "host": member.host} for member in group.members or ()
            ]
        found.append(one)
    return {"time": iso(seen.at), "groups": found}


def _topic_json(seen: Snapshot, group: Group, topic: str, lags: Sequence[Lag], *, detailed: bool) -> dict[str, Any]:
    one: dict[str, Any] = {
        "topic": topic,
        "lag_records": _records(lags),
        "lag_seconds": round(_seconds(lags, seen.at), 3),
        "members": None if group.members is None else _readers(group, topic),
    }
    if detailed:
        one["partitions"] = [_partition_json(seen, lag) for lag in lags]
    return one


def _partition_json(seen: Snapshot, lag: Lag) -> dict[str, Any]:
    return {
        "partition": lag.partition.number,
        "committed": lag.committed,
        "start": lag.log.start,
        "end": lag.log.end,
        "lag_records": lag.records,
        "lag_seconds": round(lag.seconds(seen.at), 3),
        "unprocessed_since": iso(lag.since),
        "is_gone": lag.gap is not None,
        "member": lag.member.id if lag.member is not None else None,
    }


def span(seconds: float) -> str:
    """A stretch of time in few characters, such as `0.3 s`, `4 min` or `2 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds else "-"
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    if seconds < 2 * _DAY:
        return f"{seconds / _HOUR:.0f} h"
    return f"{seconds / _DAY:.0f} d"


def _records(lags: Iterable[Lag]) -> int:
    return sum(lag.records for lag in lags)


def _seconds(lags: Iterable[Lag], now: datetime) -> float:
    return max(lag.seconds(now) for lag in lags)


def _readers(group: Group, topic: str) -> int:
    """How many of its members have partitions of a topic."""
    return sum(any(partition.topic == topic for partition in member.partitions) for member in group.members or ())


def _short(member: str) -> str:
    """The part of a member's id by which people tell it from others: clients add a uuid to their name."""
    return member[-36:][:8] if len(member) > 36 else member
