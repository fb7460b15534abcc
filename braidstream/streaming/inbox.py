"""The consuming side of a worker: whole batches of what it owns, and going back after an abort."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import structlog
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, KafkaException, Message, TopicPartition

from braidstream.errors import FatalError, RetriableError, UnavailableError
from braidstream.streaming import gaps
from braidstream.streaming.gaps import Gap
from braidstream.streaming.ports import Consumer, Partition, is_lasting, partition_of

_CALL_TIMEOUT = 10.0
_STARTS_TIMEOUT = 5.0
_PAUSE = 0.1


@dataclass(frozen=True)
class Batch:
    """What one call of `take` brought.

    `group` is the group's metadata as of the moment the records were taken: the broker refuses a transaction that
    carries it once another member owns a partition of these records. `revoked` and `assigned` came before the records,
    in this order.
    """

    records: Sequence[Message]
    group: Any
    revoked: Sequence[Partition]
    assigned: Sequence[Partition]


class Reading(NamedTuple):
    """How far an owned partition is read.

    `end` is its high watermark as last heard, None before the first fetch; `read_at` the timestamp of the last record
    taken, in milliseconds since 1970, UTC, None before there was one.
    """

    position: int
    end: int | None
    read_at: int | None
    paused: bool

    @property
    def lag(self) -> int:
        """Offsets between the read position and the end."""
        return max(0, self.end - self.position) if self.end is not None else 0


@dataclass
class _Changes:
    revoked: list[Partition] = field(default_factory=list)
    assigned: list[Partition] = field(default_factory=list)


def _of(tp: TopicPartition) -> Partition:
    return Partition(tp.topic, tp.partition)


def _last_of_each(records: Iterable[Message]) -> dict[tuple[Any, Any], Message]:
    """The last record by topic and partition; a plain tuple for each record, since making them is most of the work."""
    return {(record.topic(), record.partition()): record for record in records}


def _why_not_told(exception: KafkaException) -> str:
    """Why the committed offsets are not told."""
    error: KafkaError = exception.args[0]
    if error.code() != KafkaError._TIMED_OUT:
        return error.str()
    return (
        f"{error.str()} (with the broker up, what holds them back is a transaction: kafka-transactions.sh find-hanging)"
    )


def timestamp_of(record: Message) -> int | None:
    """Milliseconds since 1970, UTC; None where the record has none."""
    kind, at = record.timestamp()
    return at if kind != TIMESTAMP_NOT_AVAILABLE else None


class Inbox:
    """Takes batches of records, of the partitions that this member owns and that are not paused.

    `eager` says that a rebalance gives up everything first (see `clients.is_eager`), `silent` that the group does not
    call back when it gives nothing (see `clients.is_silent`). New partitions start out paused when `hold_new` is set,
    so that nothing of them is read before the caller says so. `offsets_command` begins the command line by which the
    offsets of the group are reset. `patience` bounds, in seconds, the wait for the committed offsets of new partitions:
    those of a killed worker are told when its transaction has run out.
    """

    def __init__(
        self,
        consumer: Consumer,
        topics: Sequence[str],
        *,
        eager: bool,
        silent: bool = False,
        hold_new: bool = False,
        offsets_command: str = "kafka-consumer-groups.sh",
        patience: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._consumer = consumer
        self._topics = list(topics)
        self._eager = eager
        self._silent = silent
        self._group: Any = None
        self._outside: list[Any] = []
        self._hold_new = hold_new
        self._offsets_command = offsets_command
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._next: dict[Partition, int] = {}
        self._read_at: dict[Partition, int | None] = {}
        self._paused: set[Partition] = set()
        self._changes = _Changes()
        self._before_revoke: Callable[[], None] = lambda: None
        self._failure: Exception | None = None
        self._leaving = False
        self.assigned = False
        """Whether the group has told what this member owns, which may be nothing."""
        self.rebalances: Counter[str] = Counter(assigned=0, revoked=0, lost=0)
        """What the group gave, took, and what was lost, how often since the start."""
        self._log = structlog.get_logger()

    @property
    def owned(self) -> Collection[Partition]:
        """The partitions that this member owns now."""
        return self._next.keys()

    def subscribe(self, before_revoke: Callable[[], None]) -> None:
        """Join the group. `before_revoke` is called while partitions that are to go are still owned."""
        self._before_revoke = before_revoke
        self._outside = [self._consumer.consumer_group_metadata()]
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def take(self, limit: int, wait: float, linger: float) -> Batch:
        """At most `limit` records: wait up to `wait` seconds for the first, then `linger` for those right behind it."""
        first = self._consume(1, wait)
        known = len(self._changes.revoked)
        rest = self._consume(limit - 1, linger) if first and limit > 1 else []
        if gone := set(self._changes.revoked[known:]):
            first = [record for record in first if partition_of(record) not in gone]
        records = self._readable(first + rest)
        group = self._group = self._consumer.consumer_group_metadata()
        self.assigned |= self._silent and group not in self._outside
        if records and not self._consumer.memberid():
            # The broker takes metadata without a member's id for a consumer outside the group, and fences nothing.
            raise RetriableError("the session ended after these records were taken: they are another member's now")
        changes, self._changes = self._changes, _Changes()
        return Batch(records, group, changes.revoked, changes.assigned)

    def next_offsets(self, partitions: Iterable[Partition]) -> list[TopicPartition]:
        """Where each of these partitions goes on, for committing."""
        return [TopicPartition(*partition, self._next[partition]) for partition in partitions]

    def positions(self) -> Mapping[Partition, int]:
        """How far each owned partition was read; control records count, unlike in the records' own offsets."""
        at = self._consumer.position([TopicPartition(*partition) for partition in self._next])
        # Until something was delivered the position is not defined, but the start is.
        return {(p := _of(tp)): max(tp.offset, self._next[p]) for tp in at}

    def readings(self) -> Mapping[Partition, Reading]:
        """How far each owned partition is read, and what is known of its end without asking the broker."""
        found = {}
        for partition, position in self.positions().items():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), timeout=0, cached=True)
            end = high if high >= 0 else None
            found[partition] = Reading(position, end, self._read_at.get(partition), partition in self._paused)
        return found

    def pause(self, wanted: Collection[Partition]) -> None:
        """Read the owned partitions except these."""
        held = {partition for partition in wanted if partition in self._next}
        if pause := held - self._paused:
            self._consumer.pause([TopicPartition(*partition) for partition in pause])
        if resume := {p for p in self._paused if p in self._next} - held:
            self._consumer.resume([TopicPartition(*partition) for partition in resume])
        self._paused = held

    def go_back(self) -> None:
        """Read again from the committed offsets; raises `RetriableError` when they cannot be had."""
        try:
            for tp in self._starts([TopicPartition(*partition) for partition in self._next], _CALL_TIMEOUT):
                self._seek(tp)
        except KafkaException as error:
            topics = ", ".join(self._topics)
            raise RetriableError(
                f"cannot go back to the committed offsets of {topics}: {_why_not_told(error)}"
            ) from error

    def commit(self, offsets: list[TopicPartition]) -> None:
        """Commit offsets without a transaction, and wait for it; raises `RetriableError` when the group refuses."""
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            raise RetriableError(f"the offsets were not committed: {error}") from error

    def leave_soon(self) -> None:
        """Nothing more is taken: of partitions that come now, the start is not waited for."""
        self._leaving = True

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _consume(self, limit: int, timeout: float) -> list[Message]:
        messages = self._consumer.consume(limit, timeout)
        if self._failure is not None:
            raise self._failure
        for message in messages:
            if (error := message.error()) is not None:
                self._heed(message, error)
        return [message for message in messages if message.error() is None]

    def _heed(self, message: Message, error: KafkaError) -> None:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise gaps.error(self._gaps(partition_of(message)), self._offsets_command)
        if error.code() == KafkaError._MAX_POLL_EXCEEDED:
            self._log.error("this worker was too slow and lost its partitions", detail=error.str())
        elif is_lasting(error):
            unknown = error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
            advice = "; create it with `braidstream topics create --pipeline …`" if unknown else ""
            raise FatalError(f"{message.topic() or 'consumer'}: {error.str()}{advice}")
        else:
            self._log.warning("consumer", detail=error.str())

    def _gaps(self, found: Partition) -> list[Gap]:
        """What is missing of this partition, and of the others that this member owns."""
        every = []
        for partition, offset in self._next.items():
            tp = TopicPartition(*partition)
            first, end = self._consumer.get_watermark_offsets(tp, timeout=_CALL_TIMEOUT, cached=False)
            if partition == found or not first <= offset <= end:
                every.append(Gap(partition, offset, first, end))
        return sorted(every)

    def _readable(self, records: list[Message]) -> list[Message]:
        """The records of partitions that are owned and not paused; paused ones are put back."""
        last = _last_of_each(records)
        if not self._paused.isdisjoint(last) or not last.keys() <= self._next.keys():
            records = self._put_back_paused(records)
            last = _last_of_each(records)
        for at, record in last.items():
            partition = Partition._make(at)
            self._next[partition] = int(record.offset() or 0) + 1
            self._read_at[partition] = timestamp_of(record)
        return records

    def _put_back_paused(self, records: list[Message]) -> list[Message]:
        readable = []
        back: dict[Partition, int] = {}
        for record in records:
            partition = partition_of(record)
            if partition in self._paused:
                back.setdefault(partition, int(record.offset() or 0))
            elif partition in self._next:
                readable.append(record)
        for partition, offset in back.items():
            self._seek(TopicPartition(*partition, offset))
        return readable

    def _seek(self, tp: TopicPartition) -> None:
        deadline = self._clock() + _CALL_TIMEOUT
        while True:
            try:
                self._consumer.seek(tp)
                break
            except KafkaException as error:
                # A partition that was just assigned cannot be sought until its fetching has begun.
                if error.args[0].code() != KafkaError._STATE or self._clock() > deadline:
                    raise
        self._next[_of(tp)] = tp.offset

    def _starts(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        starts = self._consumer.committed(partitions, timeout=timeout)
        for tp in starts:
            if tp.error is not None:
                raise KafkaException(tp.error)
            if tp.offset < 0:
                tp.offset = self._consumer.get_watermark_offsets(tp, timeout=_CALL_TIMEOUT, cached=False)[0]
        return starts

    def _await_starts(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Where to begin; nothing when that cannot be had in time, which ends the worker after the callback.

        A coordinator that has moved, or loads, says so at once and is asked again. No call takes long: a signal is
        heeded between two.
        """
        deadline = self._clock() + self._patience
        while partitions and not self._leaving:
            try:
                return self._starts(partitions, min(_STARTS_TIMEOUT, max(_PAUSE, deadline - self._clock())))
            except KafkaException as error:
                if is_lasting(error.args[0]) or self._clock() >= deadline:
                    what = f"the committed offsets of {', '.join(self._topics)} cannot be had"
                    self._failure = UnavailableError(f"{what}: {_why_not_told(error)}")
                    break
            self._sleep(_PAUSE)
        return []

    # A callback that raises makes librdkafka drop the batch while the position moves on: note it, raise it after.

    def _on_assign(self, _: Any, partitions: list[TopicPartition]) -> None:
        starts = self._await_starts(partitions)
        # What is not assigned cannot be given back: librdkafka refuses that, and then never closes the consumer.
        assigned = starts or partitions
        if self._eager:
            self._consumer.assign(assigned)
        else:
            self._consumer.incremental_assign(assigned)
        new = [_of(tp) for tp in starts]
        self._next |= {partition: tp.offset for partition, tp in zip(new, starts, strict=True)}
        self._changes.assigned += new
        self.assigned = True
        self.rebalances["assigned"] += 1
        if self._hold_new and new:
            self._consumer.pause(starts)
            self._paused |= set(new)

    def _on_revoke(self, _: Any, partitions: list[TopicPartition]) -> None:
        self.rebalances["revoked"] += 1
        self._give_up(partitions)

    def _on_lost(self, _: Any, partitions: list[TopicPartition]) -> None:
        self._log.warning("partitions lost", partitions=[str(_of(tp)) for tp in partitions])
        self.rebalances["lost"] += 1
        self._give_up(partitions)
        self.assigned = False
        self._outside.append(self._group)

    def _give_up(self, partitions: list[TopicPartition]) -> None:
        self._before_revoke()
        self._forget(partitions)
        if self._eager:
            self._consumer.unassign()
            self.assigned = False
        else:
            self._consumer.incremental_unassign(partitions)

    def _forget(self, partitions: list[TopicPartition]) -> None:
        gone = [_of(tp) for tp in partitions]
        for partition in gone:
            self._next.pop(partition, None)
            self._read_at.pop(partition, None)
            self._paused.discard(partition)
        self._changes.assigned = [p for p in self._changes.assigned if p not in gone]
        self._changes.revoked += gone
