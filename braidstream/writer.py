"""Publishes the events that pipelines begin with, from any program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import repeat
from typing import Any, Generic, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from braidstream.avro import Codec, E
from braidstream.column_writer import Column, ColumnWriter
from braidstream.errors import FatalError
from braidstream.pipelines import Topic
from braidstream.registry import schemas_for
from braidstream.settings import Settings
from braidstream.streaming import clients, topics
from braidstream.streaming.processor import PARTITIONED_BY_KEY
from braidstream.streaming.tracer import NewTraces, SendTracer
from braidstream.tracing import send_tracer


class EventWriter(Generic[E]):
    """Sends events of one topic, keyed so that Java's clients choose the same partitions (murmur2).

    `timeout` in seconds bounds how long `flush` waits for another acknowledgement; `identify` gives `identity`. A
    writer is used by one thread. With a `tracer` its events have traces.
    """

    def __init__(
        self,
        topic: Topic[E],
        name: str,
        codec: Codec[E],
        producer: Producer,
        timeout: float,
        *,
        identify: Callable[[], str],
        tracer: SendTracer | None = None,
    ) -> None:
        self._topic = topic
        self._name = name
        self._codec = codec
        self._producer = producer
        self._timeout = timeout
        self._identify = identify
        self._tracer = tracer
        self._handed_over = 0
        self._flushed = 0
        self._failed = 0
        self._failure: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.flush()

    @property
    def acknowledged(self) -> int:
        """How many events the broker has confirmed: after `flush` exactly, before it at least."""
        # What the client counts as waiting may include notices of its own.
        return max(self._handed_over - len(self._producer) - self._failed, self._flushed)

    def identity(self) -> str:
        """What tells the topic from every other, also from one of its name that is made when it was deleted.

        Asks the broker; raises `FatalError` when that does not answer.
        """
        return self._identify()

    def send(self, event: E) -> None:
        """Hand over one event; waits while the queue is full. Raises `FatalError` when an earlier one was refused."""
        self.send_many([self._topic.key_of(event).encode()], [self._codec.encode(event)])

    def encode(self, columns: Mapping[str, Column], rows: int) -> tuple[list[bytes], list[bytes]]:
        """The keys and values for `send_many` of events given as columns: see `ColumnWriter.encode`.

        Only types are checked, not what else the pydantic model demands: that is for the caller to see to. Raises
        `TypeError` when the topic's schema is not flat.
        """
        keys = [str(key).encode() for key in columns[self._topic.key]]
        return keys, self._columns.encode(columns, rows)

    def send_many(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Hand over records that are encoded already, in their order; else as `send`."""
        self._require_no_failure()
        produce: Callable[..., None] = self._producer.produce
        on_delivery = self._on_delivery
        untraced = repeat((None, on_delivery), len(keys))
        traced = self._tracer.sending(self._name, keys, on_delivery) if self._tracer is not None else untraced
        for key, value, (headers, heard) in zip(keys, values, traced, strict=True):
            while True:
                try:
                    # By position: with names a call takes longer.
                    produce(self._name, value, key, PARTITIONED_BY_KEY, heard, None, 0, headers)
                except BufferError:
                    self.poll(0.1)
                except KafkaException as error:
                    raise FatalError(f"{self._name}, key {key!r}: {error.args[0].str()}") from error
                else:
                    self._handed_over += 1
                    break
        self.poll(0)

    def poll(self, timeout: float) -> None:
        """Hear of failures for up to `timeout` seconds; raises `FatalError` when there was one."""
        self._producer.poll(timeout)
        self._require_no_failure()

    def flush(self) -> None:
        """Wait until every event is acknowledged; raises `FatalError` when one is refused, or none is for too long."""
        before = len(self._producer)
        while (left := self._producer.flush(self._timeout)) and left < before:
            before = left
        self._require_no_failure()
        if left:
            raise FatalError(
                f"{left} events are not acknowledged, and no other was within {self._timeout:g} s (BROKER_TIMEOUT)"
            )
        self._flushed = self._handed_over

    @cached_property
    def _columns(self) -> ColumnWriter:
        return ColumnWriter(self._topic.event_type.latest, self._codec.header)

    def _on_delivery(self, error: KafkaError | None, message: Message[Any, Any]) -> None:
        if error is None:
            return
        self._failed += 1
        if self._failure is None:
            self._failure = f"{message.topic()} [{message.partition()}], key {message.key()!r}: {error.str()}"

    def _require_no_failure(self) -> None:
        if self._failure is not None:
            raise FatalError(f"an event was not acknowledged: {self._failure}")


def open_writer(topic: Topic[E], settings: Settings, *, traces: bool = False) -> EventWriter[E]:
    """A writer for this topic, once the broker answers and the topic is as it has to be.

    With `traces`, or where OTEL_EXPORTER_OTLP_ENDPOINT is set, each event has a header `traceparent`.
    """
    service = settings.named("writer")
    tracer = send_tracer(settings, service) or (NewTraces() if traces else None)
    client = clients.admin(settings)
    name = settings.named(topic.name)
    if not topics.is_embedded(topics.await_broker(client, settings)):
        topics.check(client, [topics.TopicSpec(name, settings.partitions, {})], settings)
    codec: Codec[Any] = Codec(topic.event_type, schemas_for(settings, [topic.event_type]), name)
    hears = tracer is not None and tracer.hears_of_successes
    producer: Any = clients.plain_producer(settings, service, failures_only=not hears)
    return EventWriter(
        topic,
        name,
        codec,
        producer,
        settings.broker_timeout,
        identify=lambda: topics.identity(clients.admin(settings), name),
        tracer=tracer,
    )
