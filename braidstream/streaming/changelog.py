"""What a worker remembers, in a compacted topic: written with its results, read when a partition is taken over.

A partition is restored up to its high watermark, not to its last stable offset: while a crashed writer's transaction
is open, that one would miss newer commits (KAFKA-10167).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Generic, Protocol, TypeVar

import structlog
from confluent_kafka import OFFSET_BEGINNING, Message, TopicPartition

from braidstream.errors import FatalError, PoisonRecord, RetriableError
from braidstream.streaming.ports import LogEnds, Partition, is_lasting

_READ_AT_ONCE = 5000
_READ_WAIT = 0.05
_TELL_EVERY = 5.0

T = TypeVar("T")


class ChangelogReader(Protocol):
    """The part of a consumer without a group that a restore needs."""

    def incremental_assign(self, partitions: list[TopicPartition]) -> None: ...
    def incremental_unassign(self, partitions: list[TopicPartition]) -> None: ...
    def consume(self, num_messages: int, timeout: float) -> list[Message]: ...
    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]: ...
    def get_watermark_offsets(self, partition: TopicPartition, timeout: float, cached: bool) -> tuple[int, int]: ...
    def close(self) -> None: ...


class Restore(Generic[T]):
    """Reads the changelog of partitions in small steps, so that the main loop goes on polling.

    `take` is given every record in order: partition number, subject, and what `decode` makes of the value, or None for
    a tombstone. How far it is, is logged every 5 s.
    """

    def __init__(
        self,
        topic: str,
        make_reader: Callable[[], ChangelogReader],
        ends: LogEnds,
        decode: Callable[[bytes], T],
        take: Callable[[int, str, T | None], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = topic
        self._make_reader = make_reader
        self._ends = ends
        self._decode = decode
        self._take = take
        self._clock = clock
        self._reader: ChangelogReader | None = None
        self._asked: dict[int, Callable[[], Mapping[Partition, int] | None]] = {}
        self._targets: dict[int, int] = {}
        self._reading: set[int] = set()
        self._positions: dict[int, int] = {}
        self._records: Counter[int] = Counter()
        self._offsets_read = 0
        self._started_at = self._told_at = 0.0
        self._log = structlog.get_logger()

    @property
    def partitions(self) -> set[int]:
        """The partition numbers that are being restored."""
        return self._asked.keys() | self._targets.keys()

    @property
    def reading(self) -> bool:
        """Whether there is something to read: the broker has told where a partition ends."""
        return bool(self._targets)

    @property
    def remaining(self) -> int:
        """Offsets that are still to be read: as many as the records, or more, as compaction leaves gaps.

        Those of a partition are known when the broker has told where it ends.
        """
        return sum(max(0, end - self._positions.get(number, 0)) for number, end in self._targets.items())

    def waiting_for(self) -> str | None:
        """What is still to be done, in words; None when nothing is."""
        if not (restoring := self.partitions):
            return None
        return f"restoring partitions {sorted(restoring)} of {self._topic}: {self.remaining:,} to read"

    def start(self, partitions: Collection[int]) -> None:
        """Begin with these partitions, again from their beginning if they were under way."""
        answer = self._ends.ask([Partition(self._topic, number) for number in partitions])
        self._drop(partitions)
        self._asked |= dict.fromkeys(partitions, answer)
        self._assign()

    def stop(self, partitions: Collection[int]) -> None:
        """Drop these partitions."""
        self._drop(partitions)
        self._assign()

    def step(self) -> set[int]:
        """Read a little; the partitions that are restored with this step. Raises `RetriableError`."""
        self._hear()
        if not self._targets:
            return set()
        assert self._reader is not None
        try:
            for message in self._reader.consume(_READ_AT_ONCE, _READ_WAIT):
                self._read(message)
        except RetriableError:
            # The position is behind all that was consumed, read or not.
            self.start(set(self._targets))
            raise
        for number in self._targets:
            position = self._position(number)
            self._offsets_read += position - self._positions.get(number, position)
            self._positions[number] = position
        done = {number for number, end in self._targets.items() if self._positions[number] >= end}
        self._tell(done)
        if done:
            self.stop(done)
        return done

    def _tell(self, done: Collection[int]) -> None:
        now = self._clock()
        seconds = max(now - self._started_at, 1e-9)
        if done:
            records = sum(self._records[number] for number in done)
            self._log.info(
                "restored", topic=self._topic, partitions=sorted(done), records=records, seconds=round(seconds, 2)
            )
        elif now - self._told_at >= _TELL_EVERY:
            self._told_at = now
            left, records = self.remaining, self._records.total()
            self._log.info(
                "restoring",
                topic=self._topic,
                partitions=sorted(self._targets),
                records=records,
                offsets_read=self._offsets_read,
                offsets_left=left,
                records_per_s=round(records / seconds),
                seconds_left=round(left * seconds / self._offsets_read) if self._offsets_read else None,
            )

    def _drop(self, partitions: Collection[int]) -> None:
        for number in partitions:
            self._asked.pop(number, None)
            self._targets.pop(number, None)
            self._positions.pop(number, None)
            self._records.pop(number, None)

    def _hear(self) -> None:
        """Take the ends that the broker has told; a partition whose end it cannot tell is asked for again."""
        told = set()
        for number, answer in list(self._asked.items()):
            try:
                ends = answer()
            except RetriableError:
                self._asked[number] = self._ends.ask([Partition(self._topic, number)])
                raise
            if ends is not None:
                del self._asked[number]
                self._targets[number] = ends[Partition(self._topic, number)]
                told.add(number)
        if told:
            self._assign()

    def _assign(self) -> None:
        """Read what has a target: what is being read goes on, the others begin."""
        if self._reader is None and self._targets:
            self._reader = self._make_reader()
            self._started_at = self._told_at = self._clock()
            self._offsets_read = 0
        if self._reader is not None:
            gone, new = self._reading - self._targets.keys(), self._targets.keys() - self._reading
            self._reader.incremental_unassign([TopicPartition(self._topic, number) for number in gone])
            self._reader.incremental_assign([TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in new])
        self._reading = set(self._targets)
        if self._reader is not None and not self._targets:
            self._reader.close()
            self._reader = None

    def _position(self, number: int) -> int:
        assert self._reader is not None
        position = self._reader.position([TopicPartition(self._topic, number)])[0].offset
        if position >= 0:
            return position
        # Nothing was delivered: an empty partition begins where it ends.
        return self._reader.get_watermark_offsets(TopicPartition(self._topic, number), timeout=10.0, cached=False)[0]

    def _read(self, message: Message) -> None:
        if (error := message.error()) is not None:
            if is_lasting(error):
                raise FatalError(f"{self._place(message)}: {error.str()}")
            return
        number, key, value = message.partition() or 0, message.key(), message.value()
        if number not in self._targets:
            return
        self._positions.setdefault(number, message.offset() or 0)
        if key is None:
            return
        try:
            state = self._decode(value) if value is not None else None
        except PoisonRecord as error:
            raise FatalError(
                f"{self._place(message)}: the state of a subject cannot be read: {error}. It was not written by this "
                "service; remove that record (a tombstone for its key) and start again."
            ) from error
        self._take(number, key.decode(errors="replace"), state)
        self._records[number] += 1

    def _place(self, message: Message) -> str:
        return f"{self._topic} [{message.partition()}] offset {message.offset()}"
