"""Publishes the events that pipelines begin with, from any program."""

from __future__ import annotations

from typing import Any, Generic, Self

from confluent_kafka import KafkaError, KafkaException, Message

from braidstream.avro import Codec, E
from braidstream.errors import FatalError
from braidstream.pipeline import Topic
from braidstream.registry import schemas_for
from braidstream.settings import Settings
from braidstream.streaming import clients, topics
from braidstream.streaming.ports import Producer
from braidstream.streaming.processor import PARTITIONED_BY_KEY


class EventWriter(Generic[E]):
    """Sends events of one topic, keyed so that Java's clients choose the same partitions (murmur2).

    `acknowledged` counts the events that the broker has confirmed. `timeout` in seconds bounds `flush`.
    """

    def __init__(self, topic: Topic[E], name: str, codec: Codec[E], producer: Producer, timeout: float) -> None:
        self.acknowledged = 0
        self._topic = topic
        self._name = name
        self._codec = codec
        self._producer = producer
        self._timeout = timeout
        self._failure: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.flush()

    def send(self, event: E) -> None:
        """Hand over one event; waits while the queue is full. Raises `FatalError` when an earlier one was refused."""
        key, value = self._topic.key_of(event).encode(), self._codec.encode(event)
        while True:
            self._require_no_failure()
            try:
                self._producer.produce(
                    self._name,
                    value=value,
                    key=key,
                    partition=PARTITIONED_BY_KEY,
                    on_delivery=self._on_delivery,
                    headers=[],
                )
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                raise FatalError(f"{self._name}, key {key.decode()}: {error.args[0].str()}") from error
            else:
                self._producer.poll(0)
                return

    def poll(self, timeout: float) -> None:
        """Hear acknowledgements for up to `timeout` seconds."""
        self._producer.poll(timeout)
        self._require_no_failure()

    def flush(self) -> None:
        """Wait until every event is acknowledged; raises `FatalError` when one is not in time."""
        left = self._producer.flush(self._timeout)
        self._require_no_failure()
        if left:
            raise FatalError(f"{left} events were not acknowledged within {self._timeout:g} s (BROKER_TIMEOUT)")

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.acknowledged += 1
        elif self._failure is None:
            self._failure = f"{message.topic()} [{message.partition()}], key {message.key()!r}: {error.str()}"

    def _require_no_failure(self) -> None:
        if self._failure is not None:
            raise FatalError(f"an event was not acknowledged: {self._failure}")


def open_writer(topic: Topic[E], settings: Settings) -> EventWriter[E]:
    """A writer for this topic, once the broker answers and the topic is as it has to be."""
    client = clients.admin(settings)
    name = settings.named(topic.name)
    if not topics.is_embedded(topics.await_broker(client, settings)):
        topics.check(client, [topics.TopicSpec(name, settings.partitions, {})], settings)
    codec: Codec[Any] = Codec(topic.event_type, schemas_for(settings, [topic.event_type]), name)
    producer = clients.plain_producer(settings, settings.named("writer"))
    return EventWriter(topic, name, codec, producer, settings.broker_timeout)
