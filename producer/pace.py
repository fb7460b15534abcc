"""When each ride is due, in seconds after the start of a replay; pure, so that the clock stays with the caller."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import count, repeat

MAX_GAP = 10.0
"""The longest wait between two rides, in seconds, however far apart their pickups are."""


def at_once() -> Iterator[float]:
    """Every ride is due at the start."""
    return repeat(0.0)


def at_rate(rate: float) -> Iterator[float]:
    """`rate` rides a second, evenly spaced."""
    return (number / rate for number in count())


def compressed(pickups: Iterable[datetime], speedup: float) -> Iterator[float]:
    """The gaps between the pickups, divided by `speedup` and each at most `MAX_GAP`; 60 makes an hour a minute."""
    due = 0.0
    previous: datetime | None = None
    for pickup in pickups:
        if previous is not None:
            gap = (pickup - previous).total_seconds() / speedup
            due += min(max(gap, 0.0), MAX_GAP)
        previous = pickup
        yield due
