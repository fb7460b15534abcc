"""The two brokers that have to behave alike: the fake one, and Kafka."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from confluent_kafka import Message, TopicPartition
from confluent_kafka.cimpl import NewTopic

from braidstream.settings import Settings
from braidstream.streaming import clients
from braidstream.streaming.changelog import ChangelogReader
from braidstream.streaming.ports import Consumer, LogEnds, Partition, Producer
from braidstream.testing.broker import FakeBroker

ATTEMPTS = 150
WAIT = 0.1
"""Seconds for which each attempt of a real consumer waits for records."""


class Broker(Protocol):
    """What the contract tests run on."""

    ends: LogEnds

    def consumer(self, group: str, *, eager: bool) -> Consumer: ...
    def reader(self) -> ChangelogReader: ...
    def producer(self, transactional: str | None = None) -> Producer: ...
    def topic(self, name: str) -> str: ...
    def delete_records(self, partition: Partition, before: int) -> None: ...


class Fake:
    """The broker of `braidstream.testing`."""

    def __init__(self) -> None:
        self._broker = FakeBroker(partitions=4, max_message_bytes=1_048_588)
        self.ends: LogEnds = self._broker.ends

    def consumer(self, group: str, *, eager: bool) -> Consumer:
        return self._broker.consumer(group, eager=eager)

    def reader(self) -> ChangelogReader:
        return self._broker.reader()

    def producer(self, transactional: str | None = None) -> Producer:
        return self._broker.producer(transactional)

    def topic(self, name: str) -> str:
        return name

    def delete_records(self, partition: Partition, before: int) -> None:
        self._broker.delete_records(partition, before)


class Kafka:
    """A real one; topics and groups get a prefix."""

    def __init__(self, bootstrap_servers: str, prefix: str) -> None:
        self._settings = Settings.load(
            {"KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers, "KAFKA_HEARTBEAT_INTERVAL_MS": "100"}
        )
        self._prefix = prefix
        self._admin = clients.admin(self._settings)
        self.ends: LogEnds = clients.BrokerLogEnds(lambda: self._admin)
        self._close: list[Callable[[], None]] = []

    def consumer(self, group: str, *, eager: bool) -> Consumer:
        assignment: clients.Assignment = "range" if eager else "cooperative"
        consumer = clients.worker_consumer(self._settings, self._prefix + group, assignment, lambda _: None)
        self._close.append(consumer.close)
        return consumer

    def reader(self) -> ChangelogReader:
        reader: ChangelogReader = clients.reader(self._settings, self._prefix + "reader")
        self._close.append(reader.close)
        return reader

    def producer(self, transactional: str | None = None) -> Producer:
        if transactional is not None:
            return clients.transactional_producer(self._settings, self._prefix + transactional)
        return clients.plain_producer(self._settings, self._prefix)

    def topic(self, name: str) -> str:
        full = self._prefix + name
        for created in self._admin.create_topics([NewTopic(full, 4, 1)]).values():
            created.result()
        return full

    def delete_records(self, partition: Partition, before: int) -> None:
        for deleted in self._admin.delete_records([TopicPartition(*partition, before)]).values():
            deleted.result()

    def close(self) -> None:
        """Let every consumer leave its group."""
        for close in self._close:
            close()


class _Source(Protocol):
    def consume(self, num_messages: int, timeout: float) -> list[Message]: ...


def take(source: _Source, count: int, attempts: int = ATTEMPTS) -> list[Message]:
    """This many records; fewer when they do not come."""
    records: list[Message] = []
    for _ in range(attempts):
        if len(records) == count:
            break
        records += source.consume(count - len(records), WAIT)
    return records


def turn_until(condition: Callable[[], bool], *sources: _Source) -> list[Message]:
    """Let consumers poll in turns until something is so; what they got on the way."""
    records: list[Message] = []
    for _ in range(ATTEMPTS):
        if condition():
            return records
        for source in sources:
            records += source.consume(100, WAIT)
    raise AssertionError("it did not come about")
