"""What the loop tells whoever watches it: the contract, without any library for metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from braidstream.errors import RetriableError
from braidstream.streaming.inbox import Reading
from braidstream.streaming.ports import Partition
from braidstream.streaming.processor import Work


class Turn(NamedTuple):
    """How the loop is at one of its turns.

    `assigned` says that the group has told this member what it owns, which may be nothing. `waiting_for` is the
    processor's, `failing` why a batch is being tried again.
    """

    assigned: bool
    partitions: int
    waiting_for: str | None
    failing: str | None


class View(NamedTuple):
    """What a worker owns and holds at a moment.

    `gauges` are the processor's. `rebalances` counts since the start what the group gave, took, and what was lost.
    `drained` says that since the last view the worker has once taken all that was there.
    """

    readings: Mapping[Partition, Reading]
    gauges: Mapping[str, int]
    rebalances: Mapping[str, int]
    drained: bool


class Observer(Protocol):
    """Hears of the loop in the loop's own thread, which waits for it."""

    def turned(self, turn: Turn) -> None:
        """Called at every turn, and before a batch that failed is tried again."""
        ...

    def viewed(self, view: View) -> None:
        """Called about once a second."""
        ...

    def committed(self, work: Work) -> None:
        """What a batch gave is in the log."""
        ...

    def went_back(self, error: RetriableError) -> None:
        """A batch is undone, to be read again."""
        ...
