"""The benchmark's own topics on the broker: filled fast, watched cheaply, read once, and deleted at the end."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Self, TypeVar

import numpy as np
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from numpy.typing import NDArray

from bench.records import Record, ride_number
from braidstream.errors import SettingsError, UnavailableError
from braidstream.settings import Settings
from braidstream.streaming import topics
from rides.pipeline import RIDES

PASSED_THROUGH = "passed_through"
"""Where the raw pass-through and the peers write."""

T = TypeVar("T")

_FILLER: dict[str, Any] = {
    "linger.ms": "20",
    "compression.type": "lz4",
    "batch.size": "1000000",
    "queue.buffering.max.messages": "1000000",
    "queue.buffering.max.kbytes": "1000000",
    "delivery.report.only.error": True,
}
_TRIES = 100
_CALL_TIMEOUT = 30.0
_LAST = 100
"""More control records than partitions end with."""


def retried(call: Callable[[], T], codes: Iterable[int]) -> T:
    """The call's result, as soon as the broker no longer answers with one of these codes."""
    for left in reversed(range(_TRIES)):
        try:
            return call()
        except KafkaException as error:
            if not left or error.args[0].code() not in codes:
                raise
            time.sleep(0.1)
    raise AssertionError("the last try returns or raises")


class Arena:
    """The pipeline's topics, and one for raw copies, under a prefix of their own.

    The broker stamps what is written with its own time of appending it.
    """

    def __init__(self, broker: str, partitions: int) -> None:
        kafka = MappingProxyType({"bootstrap.servers": broker})
        self.prefix = f"bench-{uuid.uuid4().hex[:8]}."
        self.settings = Settings(kafka=kafka, topic_prefix=self.prefix, partitions=partitions)
        self.broker = broker
        self._admin = AdminClient({"bootstrap.servers": broker, "log_level": 4})
        self._specs: list[topics.TopicSpec] = []

    def __enter__(self) -> Self:
        stamped = {"message.timestamp.type": "LogAppendTime"}
        specs = topics.specs(RIDES, self.settings)
        specs.append(topics.TopicSpec(self.named(PASSED_THROUGH), self.settings.partitions, {}))
        self._specs = [spec._replace(config={**spec.config, **stamped}) for spec in specs]
        topics.create(self._admin, self._specs, None)
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._admin.delete_topics([spec.name for spec in self._specs]).values():
            future.result()
        groups = [group.group_id for group in self._admin.list_consumer_groups().result().valid]
        # A group whose members have not left is deleted by the broker, when its offsets are too old.
        for future in self._admin.delete_consumer_groups(
            [g for g in groups if g.startswith(self.prefix)] or [""]
        ).values():
            future.exception()

    def named(self, name: str) -> str:
        """The full name of a topic or a group."""
        return f"{self.prefix}{name}"

    def add_topic(self, name: str) -> str:
        """One more topic; its full name."""
        spec = topics.TopicSpec(self.named(name), self.settings.partitions, {})
        topics.create(self._admin, [spec], None)
        self._specs.append(spec)
        return spec.name

    def fill(self, topic: str, records: Iterable[Record]) -> None:
        """Send the records, each to the partition of its ride; raises `UnavailableError` when one is not taken."""
        failed: list[KafkaError] = []
        # Only errors are reported, and all of them: the callback costs nothing for what is taken.
        config = {**_FILLER, "bootstrap.servers": self.broker, "on_delivery": lambda error, _: failed.append(error)}
        producer = Producer(config)
        partitions = self.settings.partitions
        for number, key, value in records:
            while True:
                try:
                    producer.produce(topic, value, key, number % partitions)
                    break
                except BufferError:
                    producer.poll(0.1)
        left = producer.flush(60)
        if failed or left:
            raise UnavailableError(f"{topic} was not filled: {failed[0].str() if failed else f'{left} records left'}")

    def ends(self, topic: str) -> Mapping[tuple[str, int], int]:
        """The end of each partition, records of open transactions included."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = self._admin.list_offsets(
            {TopicPartition(topic, number): latest for number in range(self.settings.partitions)}
        )
        return {(at.topic, at.partition): future.result().offset for at, future in asked.items()}

    def record_ends(self, topic: str) -> Mapping[tuple[str, int], int]:
        """The offset behind the last committed record of each partition that has one: no control record counts."""
        ends = self.ends(topic)
        starts = [max(0, ends[topic, number] - _LAST) for number in range(self.settings.partitions)]
        return {
            (topic, message.partition() or 0): (message.offset() or 0) + 1 for message in self._records(topic, starts)
        }

    @contextmanager
    def offsets_of(self, group: str) -> Iterator[Callable[[Iterable[tuple[str, int]]], Mapping[tuple[str, int], int]]]:
        """Asks for the group's committed offsets of partitions; those that have none are left out."""
        # An AdminClient that asks dies (SIGSEGV) while a fresh broker has no coordinator yet:
        # https://github.com/confluentinc/confluent-kafka-javascript/issues/374
        asking = Consumer({"bootstrap.servers": self.broker, "group.id": group, "isolation.level": "read_uncommitted"})

        def committed(partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
            wanted = [TopicPartition(*partition) for partition in partitions]
            found = retried(
                lambda: asking.committed(wanted, timeout=_CALL_TIMEOUT),
                [KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE],
            )
            return {(at.topic, at.partition): at.offset for at in found if at.offset >= 0}

        try:
            yield committed
        finally:
            asking.close()

    def forget(self, group: str) -> None:
        """Delete a group whose members have left, so that it begins anew."""
        retried(
            lambda: self._admin.delete_consumer_groups([group])[group].result(),  # noqa: PLW0108 - asks again each time
            [KafkaError.NON_EMPTY_GROUP, KafkaError.REBALANCE_IN_PROGRESS],
        )

    def clear(self, topic: str) -> None:
        """Delete what was written to a topic."""
        ends = [TopicPartition(name, number, end) for (name, number), end in self.ends(topic).items()]
        for future in self._admin.delete_records(ends).values():
            future.result()

    def read(self, topic: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rides' numbers and the records' times (ms since 1970) of all that is committed in a topic."""
        numbers: list[int] = []
        stamps: list[int] = []
        for message in self._records(topic, [OFFSET_BEGINNING] * self.settings.partitions):
            numbers.append(ride_number(_key(message)))
            stamps.append(message.timestamp()[1])
        return np.array(numbers, dtype=np.int64), np.array(stamps, dtype=np.int64)

    def values(self, topic: str) -> list[bytes]:
        """The values of all that is committed in a topic."""
        records = self._records(topic, [OFFSET_BEGINNING] * self.settings.partitions)
        return [value for message in records if isinstance(value := message.value(), bytes)]

    def _records(self, topic: str, starts: Sequence[int]) -> Iterator[Message[Any, Any]]:
        """What is committed from these offsets of the partitions on."""
        reader = Consumer(
            {
                "bootstrap.servers": self.broker,
                "group.id": self.named("reader"),
                "isolation.level": "read_committed",
                "enable.auto.commit": "false",
                "enable.partition.eof": "true",
                "queued.min.messages": "1000000",
                "fetch.queue.backoff.ms": "10",
            }
        )
        reader.assign([TopicPartition(topic, number, start) for number, start in enumerate(starts)])
        reading = len(starts)
        while reading:
            # Asked for many, the client waits until they are there or the time is over.
            for message in reader.consume(1, 1.0) + reader.consume(50_000, 0):
                if (error := message.error()) is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    reading -= 1
                else:
                    raise UnavailableError(f"{topic} cannot be read: {error.str()}")
        reader.close()


def _key(message: Any) -> bytes:
    key = message.key()
    if not isinstance(key, bytes):
        raise SettingsError(f"{message.topic()} [{message.partition()}] offset {message.offset()} has no key")
    return key
