"""Notices that the loop does not turn, or that a partition is not read although there is something to read.

Both say so once each time, to the log and by `note`: why, or None when it goes on. Time in which this process was
stopped does not count: between two looks no more than two seconds do.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from traceback import StackSummary, walk_stack

import structlog

from braidstream.streaming.inbox import Reading
from braidstream.streaming.ports import Partition

EVERY = 1.0
"""Seconds between two looks."""

_FRAMES = 6

Note = Callable[[str | None], None]


class _Elapsed:
    """The seconds since it was called last, of which those count in which this process ran."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = clock()

    def __call__(self) -> float:
        before, self._at = self._at, self._clock()
        return min(self._at - before, 2 * EVERY)


class LoopWatch:
    """Notices that the loop has not turned for `limit` seconds. `look` is called every second by another thread."""

    def __init__(self, limit: float, note: Note, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._note = note
        self._elapsed = _Elapsed(clock)
        self._thread: int | None = None
        self._turns = self._seen = 0
        self._still = 0.0
        self._stuck = False
        self._log = structlog.get_logger()

    def turned(self) -> None:
        """The loop has turned, in the thread that calls this."""
        self._thread = threading.get_ident()
        self._turns += 1

    def look(self) -> None:
        """See whether it has turned since the last look. Before its first turn it is not watched."""
        elapsed = self._elapsed()
        if self._thread is None:
            return
        if self._turns != self._seen:
            self._seen, self._still = self._turns, 0.0
            if self._stuck:
                self._stuck = False
                self._log.info("the loop turns again")
                self._note(None)
            return
        self._still += elapsed
        if self._still >= self._limit and not self._stuck:
            self._stuck = True
            at = _innermost(self._thread)
            self._log.error(
                "the loop does not turn: restart this process, unless it goes on",
                for_seconds=round(self._still),
                at=at,
            )
            self._note(f"the loop has not turned for over {self._limit:g} s; it is at {at}")


class PartitionWatch:
    """Notices that a partition has not moved for `limit` seconds, although it has a lag and is not paused.

    Only time counts in which the worker has once taken all that was there: what it has fetched of other partitions
    may come first.
    """

    def __init__(self, limit: float, note: Note, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._note = note
        self._elapsed = _Elapsed(clock)
        self._standing: dict[Partition, tuple[int, float]] = {}
        self._stalled: frozenset[Partition] = frozenset()
        self._log = structlog.get_logger()

    @property
    def stalled(self) -> Collection[Partition]:
        """The partitions that stand still."""
        return self._stalled

    def look(self, readings: Mapping[Partition, Reading], *, drained: bool) -> None:
        """See which of the owned partitions have moved since the last look."""
        elapsed = self._elapsed()
        standing = {}
        for partition, reading in readings.items():
            position, still = self._standing.get(partition, (-1, 0.0))
            stands = reading.position == position and reading.lag and not reading.paused
            standing[partition] = reading.position, (still + elapsed * drained if stands else 0.0)
        self._standing = standing
        stalled = frozenset(partition for partition, (_, still) in standing.items() if still >= self._limit)
        if stalled != self._stalled:
            self._tell(readings, stalled)
            self._stalled = stalled

    def _tell(self, readings: Mapping[Partition, Reading], stalled: frozenset[Partition]) -> None:
        for topic, number in sorted(stalled - self._stalled):
            reading = readings[Partition(topic, number)]
            self._log.error(
                "a partition is not read although it has records: see whether its leader is online, and whether a "
                "transaction of another producer is left open",
                partition=f"{topic} [{number}]",
                position=reading.position,
                lag=reading.lag,
                for_seconds=self._limit,
            )
        for topic, number in sorted((self._stalled - stalled) & readings.keys()):
            self._log.info("a partition is read again", partition=f"{topic} [{number}]")
        names = ", ".join(f"{topic} [{number}]" for topic, number in sorted(stalled))
        self._note(f"not read for over {self._limit:g} s although there are records: {names}" if stalled else None)


def _innermost(thread: int) -> str:
    """Where a thread is: its innermost frames, the innermost first."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "its end"
    frames = StackSummary.extract(walk_stack(frame), limit=_FRAMES, lookup_lines=False)
    return " < ".join(f"{'/'.join(Path(at.filename).parts[-2:])}:{at.lineno} {at.name}" for at in frames)
