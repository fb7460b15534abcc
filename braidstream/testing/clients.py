"""The clients of the fake broker, with confluent-kafka's methods, errors and quirks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, Message, TopicPartition

from braidstream.streaming.ports import Partition, Rebalance
from braidstream.testing.groups import NO_GENERATION, GroupMetadata, Member
from braidstream.testing.log import Outcome, Record

if TYPE_CHECKING:
    from braidstream.testing.broker import FakeBroker


def _partition(tp: TopicPartition) -> Partition:
    return Partition(tp.topic, tp.partition)


def _tps(partitions: Iterable[Partition]) -> list[TopicPartition]:
    return [TopicPartition(*partition) for partition in sorted(partitions)]


@dataclass
class _Reading:
    """Where a partition is read next; `position` is not defined before something was read.

    What is read from a new place is not there yet at the first `consume`, as it has to be fetched.
    """

    next: int
    position: int = OFFSET_INVALID
    fetched: bool = False
    failed: bool = False


class FakeConsumer:
    """Reads committed records; a lost offset is an error (`auto.offset.reset=error`), of a reader the beginning."""

    def __init__(self, broker: FakeBroker, group: str | None, *, eager: bool) -> None:
        self._broker = broker
        self._group = broker.group(group) if group is not None else None
        self._eager = eager
        self._member: Member | None = None
        self._callbacks: tuple[Rebalance, Rebalance, Rebalance] | None = None
        self._readings: dict[Partition, _Reading] = {}
        self._paused: set[Partition] = set()
        self._closed = False

    def subscribe(self, topics: list[str], *, on_assign: Rebalance, on_revoke: Rebalance, on_lost: Rebalance) -> None:
        """Join the group; partitions come with `consume`. Each callback has to assign or unassign.

        A second call only changes the callbacks.
        """
        assert self._group is not None, "a reader joins no group"
        self._callbacks = on_assign, on_revoke, on_lost
        if self._member is None:
            self._member = Member(tuple(topics))
            self._group.join(self._member)

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        """What is there, at most this many; runs the rebalance callbacks first. Never waits."""
        with self._calling("consume"):
            while self._rebalance():
                pass
            messages: list[Message] = []
            while len(messages) < num_messages and (message := self._next()) is not None:
                messages.append(message)
            for reading in self._readings.values():
                reading.fetched = True
            return messages

    def assign(self, partitions: list[TopicPartition]) -> None:
        """Read these partitions and no others, from the offsets given; any negative one is the beginning."""
        self.unassign()
        self.incremental_assign(partitions)

    def unassign(self) -> None:
        """Read nothing."""
        self.incremental_unassign([TopicPartition(*partition) for partition in self._readings])

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        """Read these partitions too."""
        for tp in partitions:
            start = self._broker.log(_partition(tp)).start
            self._readings[_partition(tp)] = _Reading(tp.offset if tp.offset >= 0 else start)

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        """Read these partitions no more; they are paused no more either. Refused when one is not being read."""
        if unknown := {_partition(tp) for tp in partitions} - self._readings.keys():
            raise KafkaException(KafkaError(KafkaError._INVALID_ARG, f"not assigned: {sorted(unknown)}"))
        for tp in partitions:
            del self._readings[_partition(tp)]
            self._paused.discard(_partition(tp))

    def pause(self, partitions: list[TopicPartition]) -> None:
        """Deliver nothing of these assigned partitions."""
        self._paused |= {_partition(tp) for tp in partitions} & self._readings.keys()

    def resume(self, partitions: list[TopicPartition]) -> None:
        """Deliver them again."""
        self._paused -= {_partition(tp) for tp in partitions}

    def seek(self, partition: TopicPartition) -> None:
        """Read an assigned partition from this offset."""
        with self._calling("seek"):
            if _partition(partition) not in self._readings:
                raise KafkaException(KafkaError(KafkaError._STATE))
            self._readings[_partition(partition)] = _Reading(partition.offset)

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """How far each was read, control records included; `OFFSET_INVALID` before anything was."""
        with self._calling("position"):
            nothing = _Reading(0)
            return [
                TopicPartition(tp.topic, tp.partition, self._readings.get(_partition(tp), nothing).position)
                for tp in partitions
            ]

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        """The group's offsets; times out while a transaction is about to commit one of them."""
        assert self._group is not None, "a reader has no offsets"
        with self._calling("committed"):
            found = [_partition(tp) for tp in partitions]
            if any(self._broker.has_pending_offset(self._group.name, partition) for partition in found):
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            return [TopicPartition(*p, self._group.offsets.get(p, OFFSET_INVALID)) for p in found]

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition]:
        """Commit offsets without a transaction."""
        assert self._group is not None, "a reader has no offsets"
        assert not asynchronous, "the worker waits for its commits"
        with self._calling("commit"):
            if (code := self._group.refusal(self.consumer_group_metadata(), transactional=False)) is not None:
                raise KafkaException(KafkaError(code))
            self._group.offsets |= {_partition(tp): tp.offset for tp in offsets}
            return offsets

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float, cached: bool) -> tuple[int, int]:
        """The start, and the last stable offset; from the cache the high watermark, of what is being read."""
        with self._calling("get_watermark_offsets"):
            log = self._broker.log(_partition(partition))
            if not cached:
                return log.start, log.stable_end
            return (log.start, log.end) if _partition(partition) in self._readings else (OFFSET_INVALID,) * 2

    def consumer_group_metadata(self) -> GroupMetadata:
        """What fences a transaction of this member."""
        with self._calling("consumer_group_metadata"):
            return self._metadata()

    def memberid(self) -> str | None:
        """The id that the group knows this member by; nothing before it has joined one."""
        self._require_open()
        return self._member.id if self._member is not None else None

    def _metadata(self) -> GroupMetadata:
        assert self._group is not None, "a reader is in no group"
        member = self._member
        if member is None or member.generation == NO_GENERATION:
            return GroupMetadata(self._group.name, "", NO_GENERATION)
        return GroupMetadata(self._group.name, member.id, member.generation)

    def close(self) -> None:
        """Give everything back and leave the group."""
        if self._closed:
            return
        if self._group is not None and self._member is not None:
            if self._readings:
                self._give_back(set(self._readings))
            self._group.leave(self._member)
        self._closed = True

    def expire(self) -> None:
        """See `FakeBroker.expire_member`."""
        assert self._group is not None
        assert self._member is not None
        self._group.leave(self._member)

    def _calling(self, call: str) -> Any:
        self._require_open()
        return self._broker.calling(call if self._group is not None else f"reader.{call}")

    def _require_open(self) -> None:
        if self._closed:
            raise RuntimeError("Consumer closed")

    def _rebalance(self) -> bool:
        """Take one step of a rebalance; False when there is none to take."""
        group, member = self._group, self._member
        if group is None or member is None or self._callbacks is None:
            return False
        if member not in group:
            self._member = Member(member.topics)
            group.join(self._member)
            if member.assigned:
                self._callbacks[2](self, _tps(member.assigned))
            return True
        if group.waits_for(member):
            if self._eager and self._readings:
                self._give_back(set(self._readings))
            group.hear(member)
            return True
        target = group.news_for(member)
        if target is None:
            return False
        member.generation = group.generation
        new = target - member.assigned
        if gone := member.assigned - target:
            self._give_back(gone)
            group.begin_round()
        member.assigned |= new
        self._callbacks[0](self, _tps(new))
        return True

    def _give_back(self, partitions: set[Partition]) -> None:
        assert self._callbacks is not None
        assert self._member is not None
        self._callbacks[1](self, _tps(partitions))
        self._member.assigned -= partitions

    def _next(self) -> Message | None:
        """The record, or error, that was written first among those to be read next."""
        found = None
        for partition, reading in self._readings.items():
            if partition in self._paused or reading.failed or not reading.fetched:
                continue
            log = self._broker.log(partition)
            if not log.start <= reading.next <= log.end:
                if self._group is not None:
                    return self._lost(partition, reading)
                reading.next = log.start
            offset, entry = log.next(reading.next)
            if offset > reading.next:
                reading.next = reading.position = offset
            if entry is not None and (found is None or entry.number < found[0].number):
                found = entry, offset, log, reading
        if found is None:
            return None
        entry, offset, log, reading = found
        reading.next = reading.position = offset + 1
        return log.message(offset, entry)

    def _lost(self, partition: Partition, reading: _Reading) -> Message:
        reading.failed = True
        error = KafkaError(KafkaError._AUTO_OFFSET_RESET, "Broker: Offset out of range")
        return Message(topic=partition.topic, partition=partition.number, offset=reading.next, error=error)


Delivery = Callable[[Any, Message], None]


class FakeProducer:
    """Writes at once; delivery reports come with `poll` and `flush`."""

    def __init__(self, broker: FakeBroker, transactional_id: str | None) -> None:
        self._broker = broker
        self._id = transactional_id
        self._epoch: int | None = None
        self._begun = False
        self._error: KafkaError | None = None
        self._reports: deque[tuple[Delivery | None, KafkaError | None, Message]] = deque()

    def init_transactions(self, timeout: float) -> None:
        """Take over the transactional id: its last producer is fenced, and what that left open is aborted."""
        assert self._id is not None, "this producer has no transactional id"
        with self._broker.calling("init_transactions"):
            self._epoch = self._broker.fence(self._id)

    def begin_transaction(self) -> None:
        """Begin; the broker hears of it only later."""
        with self._broker.calling("begin_transaction"):
            self._require(begun=False)
            self._begun = True

    def send_offsets_to_transaction(
        self, positions: list[TopicPartition], group_metadata: GroupMetadata, timeout: float = -1
    ) -> None:
        """Commit offsets with the transaction. With none, nothing is checked."""
        with self._broker.calling("send_offsets_to_transaction"):
            self._require(begun=True)
            if not positions:
                return
            self._require_not_fenced()
            group = self._broker.group(group_metadata.group)
            if (code := group.refusal(group_metadata, transactional=True)) is not None:
                self._error = KafkaError(code, txn_requires_abort=True)
                raise KafkaException(self._error)
            transaction = self._broker.transaction(str(self._id))
            transaction.offsets |= {(group.name, _partition(tp)): tp.offset for tp in positions}

    def commit_transaction(self) -> None:
        """Make records and offsets seen, together."""
        with self._broker.calling("commit_transaction"):
            self.flush(0)
            self._require(begun=True)
            self._require_not_fenced()
            self._end(Outcome.COMMITTED)

    def abort_transaction(self, timeout: float = -1) -> None:
        """Undo it; also what ends a transaction that failed."""
        with self._broker.calling("abort_transaction"):
            if self._error is not None and not self._error.fatal():
                self._error = None
            self._require(begun=True)
            self._require_not_fenced()
            self._end(Outcome.ABORTED)

    def produce(  # noqa: PLR0917 - as the client has it
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        callback: Delivery | None = None,
        on_delivery: Delivery | None = None,
        timestamp: int = 0,
        headers: list[tuple[str, bytes | None]] | None = None,
    ) -> None:
        """Write a record; partition -1 chooses by the key. Both callbacks are one, and the broker stamps the time."""
        assert timestamp == 0, "the broker stamps the time"
        with self._broker.calling("produce"):
            if self._id is not None and (not self._begun or self._error is not None):
                is_fatal = self._error is not None and self._error.fatal()
                raise KafkaException(KafkaError(KafkaError._FATAL if is_fatal else KafkaError._STATE))
            at = Partition(topic, partition if partition >= 0 else self._broker.partition_of(key))
            error, offset = self._write(at, Record(key, value, headers or []))
            message = Message(topic=topic, partition=at.number, offset=offset, key=key, value=value, error=error)
            self._reports.append((callback or on_delivery, error, message))

    def poll(self, timeout: float) -> int:
        """Report the failures among what was delivered; the number of deliveries."""
        if not self._broker.acknowledges:
            return 0
        given = len(self._reports)
        while self._reports:
            on_delivery, error, message = self._reports.popleft()
            if on_delivery is not None and error is not None:
                on_delivery(error, message)
        return given

    def flush(self, timeout: float) -> int:
        """Give the delivery reports; the number of records that are not acknowledged yet."""
        with self._broker.calling("flush"):
            if self._id is not None and self._reports:
                self._require_not_fenced()
            self.poll(timeout)
            return len(self._reports)

    def purge(self) -> None:
        """Give up what is not acknowledged yet."""
        with self._broker.calling("purge"):
            self._reports.clear()

    def _write(self, at: Partition, record: Record) -> tuple[KafkaError | None, int]:
        if self._id is not None and (self._epoch is None or self._broker.is_fenced(self._id, self._epoch)):
            return KafkaError(KafkaError._PURGE_QUEUE), OFFSET_INVALID
        transaction = self._broker.transaction(self._id) if self._id is not None else None
        try:
            with self._broker.calling("deliver"):
                if (
                    self._broker.max_message_bytes is not None
                    and len(record.value or b"") > self._broker.max_message_bytes
                ):
                    raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
                return None, self._broker.append(at, record, transaction)
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            if self._id is not None:
                self._error = KafkaError(error.code(), error.str(), txn_requires_abort=True)
            return error, OFFSET_INVALID

    def _require(self, *, begun: bool) -> None:
        if self._error is not None:
            raise KafkaException(self._error)
        if self._epoch is None or self._begun is not begun:
            raise KafkaException(KafkaError(KafkaError._STATE))

    def _require_not_fenced(self) -> None:
        if self._epoch is not None and self._broker.is_fenced(str(self._id), self._epoch):
            self._error = KafkaError(KafkaError._FENCED, fatal=True)
            raise KafkaException(self._error)

    def _end(self, outcome: Outcome) -> None:
        self._begun = False
        self._broker.end(str(self._id), outcome)
