"""Do the clocks of those that write and of this machine agree?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from braidstream.cli.lag_views import span
from braidstream.doctor.findings import Finding, ok, warning
from braidstream.streaming.ports import Partition

CHECK = "clocks"

_TOLERATED = 5.0


def examine(latest: Mapping[Partition, datetime], now: datetime) -> Iterator[Finding]:
    """Records from the future; `latest` are the latest timestamps of partitions that have records."""
    ahead: dict[str, float] = {}
    for partition, at in latest.items():
        ahead[partition.topic] = max(ahead.get(partition.topic, 0.0), (at - now).total_seconds())
    found = [
        warning(
            CHECK,
            f"{topic} has records that are written {span(seconds)} from now: the clock of who writes them is ahead of "
            "this machine's. Times that are told, of lags above all, are wrong by as much",
            "timedatectl status",
        )
        for topic, seconds in ahead.items()
        if seconds > _TOLERATED
    ]
    yield from found or [ok(CHECK, "no record is from the future")]
