"""Sending events when they are due."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)

_LONGEST_POLL = 0.1
_PROGRESS_EVERY = 100


class EventWriter(Protocol[E_contra]):
    """What a replay needs of a topic's writer."""

    @property
    def acknowledged(self) -> int:
        """How many events the broker has acknowledged."""
        ...

    def send(self, event: E_contra) -> None:
        """Hand an event over; blocks while the local queue is full, raises `FatalError` when a delivery failed."""
        ...

    def poll(self, timeout: float) -> None:
        """Serve delivery reports for at most this many seconds."""
        ...

    def flush(self) -> None:
        """Wait until every event is acknowledged; raises `FatalError` when one cannot be."""
        ...


def _always(_sent: int) -> bool:
    return True


def _never() -> bool:
    return False


def _silent(_sent: int) -> None:
    pass


def replay(
    events: Iterable[E],
    writer: EventWriter[E],
    *,
    due: Iterable[float],
    clock: Callable[[], float] = time.monotonic,
    gate: Callable[[int], bool] = _always,
    stop: Callable[[], bool] = _never,
    progress: Callable[[int], object] = _silent,
) -> int:
    """Send each event when it is due, in their order, wait for the acknowledgements, and return how many were sent.

    `due` are seconds after the start by `clock`; an event that is late is sent at once. `gate` is asked with the
    number sent so far whether the next may go, again and again until it says so: it must not block. `stop` ends the
    sending early, what was sent is still waited for. `progress` is told the number sent, often.
    """
    start = clock()
    sent = 0
    for event, offset in zip(events, due, strict=False):
        while not stop() and ((wait := start + offset - clock()) > 0 or not gate(sent)):
            writer.poll(min(max(wait, 0.001), _LONGEST_POLL))
            progress(sent)
        if stop():
            break
        writer.send(event)
        sent += 1
        if sent % _PROGRESS_EVERY == 0:
            progress(sent)
    writer.flush()
    progress(sent)
    return sent
