"""Knows up to which moment a partition has been read.

A deadline may only fire when everything that was in the log at that moment has been read. So the end of the partition
is asked for, and when the read position has passed it, everything up to the moment of asking is known to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from braidstream.streaming.ports import LogEnds, Partition


class Fence:
    """For each partition the latest time, in milliseconds since 1970, up to which it is proven to be read."""

    def __init__(self, ends: LogEnds) -> None:
        self._ends = ends
        self._asked: dict[Partition, tuple[int, Callable[[], Mapping[Partition, int] | None]]] = {}
        self._ahead: dict[Partition, tuple[int, int]] = {}
        self._proven: dict[Partition, int] = {}

    def ask(self, partitions: Iterable[Partition], now: int) -> None:
        """Begin to prove that these partitions are read up to `now`; those being asked or read already go on."""
        new = [p for p in partitions if p not in self._asked and p not in self._ahead]
        if new:
            answer = self._ends.ask(new)
            self._asked |= dict.fromkeys(new, (now, answer))

    def update(self, positions: Mapping[Partition, int]) -> None:
        """Take the answers that have come, and how far was read; raises `RetriableError` when the broker failed."""
        for partition, (asked_at, answer) in list(self._asked.items()):
            try:
                ends = answer()
            except Exception:
                del self._asked[partition]
                raise
            if ends is not None:
                del self._asked[partition]
                self._ahead[partition] = (asked_at, ends[partition])
        for partition, (asked_at, end) in list(self._ahead.items()):
            if positions.get(partition, -1) >= end:
                del self._ahead[partition]
                self._proven[partition] = asked_at

    def proven(self, partition: Partition) -> int:
        """The time up to which this partition is read; 0 when nothing is known."""
        return self._proven.get(partition, 0)

    @property
    def busy(self) -> bool:
        """Whether an answer or a position is being waited for."""
        return bool(self._asked or self._ahead)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """These partitions went away, or are read again from further back."""
        for partition in partitions:
            self._asked.pop(partition, None)
            self._ahead.pop(partition, None)
            self._proven.pop(partition, None)
