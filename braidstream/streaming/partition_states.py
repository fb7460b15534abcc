"""The states of the partitions that a worker owns, each restored from a changelog before its partition is read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from braidstream.errors import RetriableError
from braidstream.streaming.changelog import Restore
from braidstream.streaming.ports import Partition

WHILE_ASKING = 0.005
"""Seconds to wait for records while the broker has yet to tell where a partition ends."""


class Staged(Protocol):
    """A state whose changes are final when they are in the log."""

    def commit(self) -> None:
        """They are."""
        ...

    def rollback(self) -> None:
        """They are not, and are undone."""
        ...


S = TypeVar("S", bound=Staged)
T = TypeVar("T")


class PartitionStates(Generic[S, T]):
    """A state for each partition number that is owned in all of the topics; it goes with the first of them.

    `make` makes an empty one. `put` gives it a subject and what the changelog has of it, None for a tombstone.
    """

    def __init__(
        self,
        topics: Sequence[str],
        make: Callable[[], S],
        make_restore: Callable[[Callable[[int, str, T | None], None]], Restore[T]],
        put: Callable[[S, str, T | None], None],
    ) -> None:
        self._topics = topics
        self._make = make
        self._restore = make_restore(lambda number, subject_id, record: put(self.by_number[number], subject_id, record))
        self.owned: set[Partition] = set()
        self.by_number: dict[int, S] = {}

    @property
    def ready(self) -> set[int]:
        """The numbers whose state is restored."""
        return self.by_number.keys() - self._restore.partitions

    @property
    def restoring(self) -> int:
        """Offsets that are still to be read."""
        return self._restore.remaining

    def rebalanced(self, revoked: Collection[Partition], assigned: Collection[Partition]) -> None:
        """Drop the state of what went, and begin to restore what came."""
        self.owned = (self.owned - set(revoked)) | set(assigned)
        gone = {partition.number for partition in revoked}
        for number in gone & self.by_number.keys():
            del self.by_number[number]
        if gone & self._restore.partitions:
            self._restore.stop(gone & self._restore.partitions)
        numbers = {partition.number for partition in self.owned}
        whole = {n for n in numbers if all(Partition(topic, n) in self.owned for topic in self._topics)}
        if new := whole - self.by_number.keys():
            self.by_number |= {number: self._make() for number in new}
            self._restore.start(new)

    def held(self) -> set[Partition]:
        """What is being restored, and what is not owned in all of the topics."""
        ready = self.ready
        return {partition for partition in self.owned if partition.number not in ready}

    def check(self, partitions: Iterable[Partition]) -> None:
        """Raises `RetriableError` when one of these, of which records came, is held."""
        ready = self.ready
        for topic, number in partitions:
            if number not in ready:
                raise RetriableError(f"{topic} [{number}] came before the partition was whole and restored")

    def restore(self) -> set[int]:
        """Go on a little; the numbers that are ready with this. Raises `RetriableError`."""
        return self._restore.step() if self._restore.partitions else set()

    def commit(self) -> None:
        """The changes of every state are in the log."""
        for state in self.by_number.values():
            state.commit()

    def rollback(self) -> None:
        """None of them is."""
        for state in self.by_number.values():
            state.rollback()

    def patience(self) -> float:
        """Seconds for which nothing has to be restored when no record comes."""
        if self._restore.reading:
            return 0.0
        return WHILE_ASKING if self._restore.partitions else float("inf")

    def waiting_for(self) -> str | None:
        """What is being restored, in words."""
        return self._restore.waiting_for()
