"""Workers that are broken on purpose, each in a way that the checker has to catch; on the broker in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import TopicPartition

from braidstream.processors import StateBroker, decision_processor
from braidstream.streaming.ports import LogEnds, Partition, Producer
from braidstream.streaming.processor import Processor
from braidstream.streaming.publisher import Finish, OutRecord, Publisher, TransactionalPublisher
from braidstream.testing.broker import FakeBroker
from braidstream.testing.kit import PolicyKit, ScorerKit
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted


class OutsideTheTransaction(TransactionalPublisher):
    """Results go to the log at once; only the offsets are in the transaction."""

    def __init__(self, broker: FakeBroker, transactional_id: str) -> None:
        super().__init__(lambda: broker.producer(transactional_id), timeout=0)
        self._plain = broker.producer()

    def publish(
        self, records: Sequence[OutRecord], states: Sequence[OutRecord], offsets: list[TopicPartition], group: Any
    ) -> Finish:
        """Write what a right publisher puts into the transaction, and begin that."""
        _write(self._plain, [*records, *states])
        return super().publish([], [], offsets, group)


class OffsetsFirst(OutsideTheTransaction):
    """Offsets are committed before the results are in the log."""

    def publish(
        self, records: Sequence[OutRecord], states: Sequence[OutRecord], offsets: list[TopicPartition], group: Any
    ) -> Finish:
        """Commit, then write."""
        TransactionalPublisher.publish(self, [], [], offsets, group)()
        _write(self._plain, [*records, *states])
        return lambda: None


def _write(producer: Producer, records: Sequence[OutRecord]) -> None:
    for topic, partition, key, value, headers in records:
        producer.produce(topic, value, key, partition, headers=headers)
    producer.flush(0)


class SeesNothingIn:
    """Tells of one topic that its partitions are empty."""

    def __init__(self, topic: str, ends: LogEnds) -> None:
        self._topic = topic
        self._ends = ends

    def ask(self, partitions: Sequence[Partition]) -> Callable[[], Mapping[Partition, int] | None]:
        """As `LogEnds.ask`."""
        answer = self._ends.ask(partitions)

        def told() -> Mapping[Partition, int] | None:
            ends = answer()
            return {p: 0 if p.topic == self._topic else end for p, end in ends.items()} if ends is not None else None

        return told


class ScorerOutsideTheTransaction(ScorerKit[RideStarted]):
    """Publishes outside of the transaction."""

    def _make_publisher(self) -> Publisher:
        super()._make_publisher()
        return OutsideTheTransaction(self.broker, self.transactional_id)


class ScorerOffsetsFirst(ScorerKit[RideStarted]):
    """Commits early."""

    def _make_publisher(self) -> Publisher:
        super()._make_publisher()
        return OffsetsFirst(self.broker, self.transactional_id)


class DeciderOutsideTheTransaction(PolicyKit[RideStarted]):
    """Publishes outside of the transaction."""

    def _make_publisher(self) -> Publisher:
        super()._make_publisher()
        return OutsideTheTransaction(self.broker, self.transactional_id)


class DeciderOffsetsFirst(PolicyKit[RideStarted]):
    """Commits early."""

    def _make_publisher(self) -> Publisher:
        super()._make_publisher()
        return OffsetsFirst(self.broker, self.transactional_id)


class _BlindDecider(PolicyKit[RideStarted]):
    """Takes a topic for empty."""

    unseen: str

    def _make_processor(self) -> Processor:
        broker = StateBroker(
            SeesNothingIn(self.unseen, self.broker.ends), self.broker.reader, lambda: round(self.now.timestamp() * 1000)
        )
        return decision_processor(
            self._pipeline, self._decision_settings, self._schemas, self._group, self._policy, broker=broker
        )


class ForgetfulDecider(_BlindDecider):
    """Forgets its state: takes the changelog for empty, and so restores nothing."""

    unseen = RIDES.decision_state.name


class HastyDecider(_BlindDecider):
    """Fires deadlines without the fence: takes the predictions for read when there are some to be read."""

    unseen = RIDES.predictions.name
