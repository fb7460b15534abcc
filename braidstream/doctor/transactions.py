"""Does an open transaction hold readers back?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from braidstream.cli.groups import Log, Stretch
from braidstream.cli.lag_views import span
from braidstream.doctor.case import Case
from braidstream.doctor.findings import Finding, ok, wrong
from braidstream.streaming.ports import Partition

CHECK = "transactions"

_LONG = 20.0
"""Seconds: the transaction of a worker that was killed is over after ten."""


def held(logs: Mapping[Partition, Log]) -> list[Stretch]:
    """What readers of committed records cannot see yet."""
    return [Stretch(at, log.end, log.high_watermark) for at, log in logs.items() if log.end < log.high_watermark]


def examine(case: Case, since: Mapping[Stretch, datetime | None], now: datetime) -> Iterator[Finding]:
    """Transactions that have been open for long; `since` is when the first record of each stretch was written."""
    found = [
        wrong(
            CHECK,
            f"a transaction that is open since {span(age)} holds back the readers of {stretch.partition.topic} "
            f"[{stretch.partition.number}] at offset {stretch.start}: end its producer, or abort it",
            case.kafka(
                "transactions",
                f"abort --topic {stretch.partition.topic} --partition {stretch.partition.number} "
                f"--start-offset {stretch.start}",
            ),
        )
        for stretch, at in sorted(since.items())
        if at is not None and (age := (now - at).total_seconds()) > _LONG
    ]
    yield from found or [ok(CHECK, "none holds readers back")]
