"""A Kafka broker in memory, for tests: as much of it as the worker and its users meet.

It has partitions with offsets, transactions, consumer groups, and failures on demand. It is single-threaded and has
no clock: nothing waits, and whatever only time brings about (a session or a transaction that runs out) is a method.
The contract tests in `tests/contract` hold it and the real Kafka to the same behaviour.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message

from braidstream.errors import RetriableError
from braidstream.streaming.partitioning import partition_of_key
from braidstream.streaming.ports import Partition
from braidstream.testing.clients import FakeConsumer, FakeProducer
from braidstream.testing.groups import Group
from braidstream.testing.log import Outcome, PartitionLog, Record, Transaction


@dataclass
class _Plan:
    """Something that happens at a later call: after `skip` others, before or (`done`) after its effect."""

    action: Callable[[], object]
    skip: int
    done: bool


class FakeBroker:
    """Every topic exists, with this many partitions, and takes values of up to `max_message_bytes`.

    `ends` is a `LogEnds`. While `acknowledges` is False, producers hear nothing of what they wrote.
    """

    def __init__(self, partitions: int = 4, max_message_bytes: int | None = None) -> None:
        self.partitions = partitions
        self.max_message_bytes = max_message_bytes
        self.acknowledges = True
        self.ends = FakeLogEnds(self)
        self._logs: dict[Partition, PartitionLog] = {}
        self._groups: dict[str, Group] = {}
        self._epochs: dict[str, int] = {}
        self._open: dict[str, Transaction] = {}
        self._plans: dict[str, deque[_Plan]] = {}
        self.written = 0
        """Entries in all logs, control records included."""

    # Clients

    def consumer(self, group: str, *, eager: bool) -> FakeConsumer:
        """A member-to-be of a group; `eager` as in `Inbox`."""
        return FakeConsumer(self, group, eager=eager)

    def reader(self) -> FakeConsumer:
        """A consumer without a group, for partitions that are assigned by hand; a `ChangelogReader`."""
        return FakeConsumer(self, None, eager=False)

    def producer(self, transactional_id: str | None = None) -> FakeProducer:
        """A producer; with an id, one for transactions."""
        return FakeProducer(self, transactional_id)

    # For tests: writing, reading, and what goes wrong

    def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> Partition:
        """Write one record outside of transactions; where it went."""
        at = Partition(topic, self.partition_of(key) if partition is None else partition)
        self.append(at, Record(key, value, list(headers)), None)
        return at

    def records(self, topic: str) -> list[Message]:
        """What a read_committed reader sees of a topic, in the order in which it was written."""
        logs = [log for partition, log in self._logs.items() if partition.topic == topic]
        return [message for _, message in sorted((pair for log in logs for pair in log.committed()), key=_number)]

    def committed(self, group: str) -> Mapping[Partition, int]:
        """The offsets that a group has committed."""
        return dict(self.group(group).offsets)

    def delete_records(self, partition: Partition, before: int) -> None:
        """Drop the records before this offset, as retention does."""
        self.log(partition).delete(before)

    def expire_member(self, consumer: FakeConsumer) -> None:
        """The group gives this consumer up, as after its session timeout; it notices at its next `consume`."""
        consumer.expire()

    def expire_transaction(self, transactional_id: str) -> None:
        """The transaction has run out: it is aborted, and its producer is fenced."""
        self.fence(transactional_id)

    def fail_next(self, call: str, error: KafkaError | Exception, *, skip: int = 0, done: bool = False) -> None:
        """Let the next call of this name fail, of whichever client; `skip` calls go well before. What is planned for
        one name happens in the order of planning.

        `call` is the name of a client's method, `reader.…` for readers, `deliver` for the delivery of a record, or
        `ends`. With `done` the call takes effect, and only its answer gets lost.
        """

        def fail() -> None:
            raise KafkaException(error) if isinstance(error, KafkaError) else error

        self._plans.setdefault(call, deque()).append(_Plan(fail, skip, done))

    def run_before(self, call: str, action: Callable[[], object], *, skip: int = 0) -> None:
        """Run something right before the next call of this name (see `fail_next`)."""
        self._plans.setdefault(call, deque()).append(_Plan(action, skip, done=False))

    # For the clients

    @contextmanager
    def calling(self, call: str) -> Iterator[None]:
        """A call, with what the tests have planned for it."""
        plan = self._due(call)
        if plan is not None and not plan.done:
            plan.action()
        yield
        if plan is not None and plan.done:
            plan.action()

    def _due(self, call: str) -> _Plan | None:
        plans = self._plans.get(call)
        if not plans:
            return None
        if plans[0].skip:
            plans[0].skip -= 1
            return None
        return plans.popleft()

    def log(self, partition: Partition) -> PartitionLog:
        """The log of a partition."""
        if not 0 <= partition.number < self.partitions:
            raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
        return self._logs.setdefault(partition, PartitionLog(partition))

    def group(self, name: str) -> Group:
        """The group of this name."""
        return self._groups.setdefault(name, Group(name, self.partitions))

    def partition_of(self, key: bytes | None) -> int:
        """The partition number of a key; 0 for none."""
        return partition_of_key(key, self.partitions) if key is not None else 0

    def append(self, partition: Partition, record: Record, transaction: Transaction | None) -> int:
        """Write a record; its offset."""
        self.written += 1
        return self.log(partition).append(self.written, record, transaction)

    def fence(self, transactional_id: str) -> int:
        """Abort what is open under this id and fence its producer; the epoch of the next one."""
        if transactional_id in self._open:
            self.end(transactional_id, Outcome.ABORTED)
        epoch = self._epochs[transactional_id] = self._epochs.get(transactional_id, -1) + 1
        return epoch

    def is_fenced(self, transactional_id: str, epoch: int) -> bool:
        """Whether a newer producer has the id."""
        return self._epochs[transactional_id] != epoch

    def transaction(self, transactional_id: str) -> Transaction:
        """The open transaction of this id; begins one if there is none."""
        return self._open.setdefault(transactional_id, Transaction())

    def end(self, transactional_id: str, outcome: Outcome) -> None:
        """Commit or abort the open transaction, if anything was sent in it."""
        transaction = self._open.pop(transactional_id, None)
        if transaction is None:
            return
        transaction.outcome = outcome
        for log in transaction.logs:
            self.written += 1
            log.append_control(self.written, transaction)
        if outcome is Outcome.COMMITTED:
            for (group, partition), offset in transaction.offsets.items():
                self.group(group).offsets[partition] = offset

    def has_pending_offset(self, group: str, partition: Partition) -> bool:
        """Whether an open transaction is about to commit an offset: it is not told before that is decided."""
        return any((group, partition) in transaction.offsets for transaction in self._open.values())


class FakeLogEnds:
    """Tells the ends of partitions as of the moment of asking, after `delay` vain attempts to hear the answer."""

    def __init__(self, broker: FakeBroker) -> None:
        self.delay = 0
        self._broker = broker

    def ask(self, partitions: Sequence[Partition]) -> Callable[[], Mapping[Partition, int] | None]:
        """See `LogEnds`."""
        ends = {partition: self._broker.log(partition).end for partition in partitions}
        vain = iter(range(self.delay))

        def answer() -> Mapping[Partition, int] | None:
            if next(vain, None) is not None:
                return None
            try:
                with self._broker.calling("ends"):
                    return ends
            except KafkaException as error:
                raise RetriableError(f"the broker did not tell where the partitions end: {error}") from error

        return answer


def _number(pair: tuple[int, Message]) -> int:
    return pair[0]
