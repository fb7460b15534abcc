"""Sending events when they are due."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from producer.pace import Pace

_SHORTEST_POLL = 0.001
_LONGEST_POLL = 0.1


class RecordWriter(Protocol):
    """What a replay needs of a topic's writer."""

    def send_many(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Hand records over; blocks while the local queue is full, raises `FatalError` when a delivery failed."""
        ...

    def poll(self, timeout: float) -> None:
        """Serve delivery reports for at most this many seconds."""
        ...

    def flush(self) -> None:
        """Wait until every record is acknowledged; raises `FatalError` when one cannot be."""
        ...


def _never() -> bool:
    return False


def _silent(_sent: int) -> None:
    pass


def replay(
    batches: Iterable[tuple[Sequence[bytes], Sequence[bytes]]],
    writer: RecordWriter,
    *,
    pace: Pace,
    clock: Callable[[], float] = time.monotonic,
    limit: Callable[[], int] = lambda: sys.maxsize,
    stop: Callable[[], bool] = _never,
    progress: Callable[[int], object] = _silent,
) -> int:
    """Send each event when it is due, in their order, wait for the acknowledgements, and return how many were sent.

    A batch holds the keys and values of some events; what of it is due goes together. `pace` counts from the start by
    `clock`; an event that is late is sent at once. No more than `limit` are sent in all: it is asked again and again,
    and must not block. `stop` ends the sending early, what was sent is still waited for. `progress` is told the number
    sent, often.
    """
    start = clock()
    sent = 0
    for keys, values in batches:
        first, end = sent, sent + len(keys)
        while sent < end and not stop():
            now = clock() - start
            ready = min(pace.ready(now), end, limit())
            if ready > sent:
                writer.send_many(keys[sent - first : ready - first], values[sent - first : ready - first])
                sent = ready
            else:
                writer.poll(min(max(pace.due(sent) - now, _SHORTEST_POLL), _LONGEST_POLL))
            progress(sent)
        if stop():
            break
    writer.flush()
    progress(sent)
    return sent
