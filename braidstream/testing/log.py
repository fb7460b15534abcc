"""The logs of the fake broker: records, transactions, and what a reader of committed records sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from confluent_kafka import Message

from braidstream.streaming.ports import Partition


class Outcome(Enum):
    """How a transaction stands."""

    OPEN = auto()
    COMMITTED = auto()
    ABORTED = auto()


@dataclass(eq=False)
class Transaction:
    """What one producer has under way; `offsets` are by group and partition."""

    outcome: Outcome = Outcome.OPEN
    logs: list[PartitionLog] = field(default_factory=list)
    offsets: dict[tuple[str, Partition], int] = field(default_factory=dict)


class Record(NamedTuple):
    """What a producer wrote."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class Entry(NamedTuple):
    """One offset: a record, or None for the control record that ends a transaction.

    `number` counts all entries of the broker, so that readers get them in the order in which they were written.
    """

    number: int
    record: Record | None
    transaction: Transaction | None


class PartitionLog:
    """One partition. `start` is its first offset that is still there."""

    def __init__(self, partition: Partition) -> None:
        self.start = 0
        self._partition = partition
        self._entries: list[Entry] = []
        self._firsts: dict[Transaction, int] = {}

    @property
    def end(self) -> int:
        """The high watermark."""
        return self.start + len(self._entries)

    @property
    def stable_end(self) -> int:
        """The last stable offset: where the first open transaction begins, or the end."""
        return min(self._firsts.values(), default=self.end)

    def append(self, number: int, record: Record, transaction: Transaction | None) -> int:
        """Write one entry; its offset."""
        if transaction is not None and transaction not in self._firsts:
            self._firsts[transaction] = self.end
            transaction.logs.append(self)
        self._entries.append(Entry(number, record, transaction))
        return self.end - 1

    def append_control(self, number: int, transaction: Transaction) -> None:
        """Write the control record that ends a transaction."""
        self._entries.append(Entry(number, None, transaction))
        del self._firsts[transaction]

    def delete(self, before: int) -> None:
        """Drop the records before this offset."""
        del self._entries[: before - self.start]
        self.start = before

    def next(self, offset: int) -> tuple[int, Entry | None]:
        """The first committed record from this offset on, and its offset; None, and how far there is none."""
        stable_end = self.stable_end
        while offset < stable_end:
            entry = self._entries[offset - self.start]
            aborted = entry.transaction is not None and entry.transaction.outcome is Outcome.ABORTED
            if entry.record is not None and not aborted:
                return offset, entry
            offset += 1
        return offset, None

    def committed(self) -> Iterator[tuple[int, Message]]:
        """Every committed record with its number."""
        offset = self.start
        while (found := self.next(offset))[1] is not None:
            offset, entry = found
            assert entry is not None
            yield entry.number, self.message(offset, entry)
            offset += 1

    def message(self, offset: int, entry: Entry) -> Message:
        """The record as a client gets it."""
        assert entry.record is not None
        key, value, headers = entry.record
        return Message(
            topic=self._partition.topic,
            partition=self._partition.number,
            offset=offset,
            key=key,
            value=value,
            headers=list(headers) or None,
        )
