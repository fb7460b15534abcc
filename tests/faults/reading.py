"""From the records of a broker, real or in memory, to what the checker takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Message

from braidstream.avro import Codec, SchemaSource
from braidstream.errors import PoisonRecord
from braidstream.pipelines import Topic
from braidstream.streaming.dead_letters import raw_headers
from braidstream.streaming.intake import Intake
from tests.faults.observed import Read


def read_inputs(topic: Topic[Any], schemas: SchemaSource, records: Sequence[Message]) -> list[Read[Any]]:
    """Records of a topic that workers read; those that they must refuse have a problem."""
    intake: Intake[Any] = Intake(topic, schemas, topic.name)
    return [_read(record, intake.read) for record in _in_order(records)]


def read_outputs(topic: Topic[Any], schemas: SchemaSource, records: Sequence[Message]) -> list[Read[Any]]:
    """Records that workers wrote; null values are tombstones."""
    codec: Codec[Any] = Codec(topic.event_type, schemas, topic.name)

    def event(record: Message) -> Any:
        return codec.decode(record.value()) if record.value() is not None else None

    return [_read(record, event) for record in _in_order(records)]


def read_dead_letters(records: Sequence[Message]) -> list[Read[bytes]]:
    """Dead letters, whose values are whatever they are."""
    return [_read(record, lambda _: None)._replace(raw=record.value()) for record in _in_order(records)]


def _in_order(records: Sequence[Message]) -> list[Message]:
    return sorted(records, key=lambda record: (record.partition() or 0, record.offset() or 0))


def _read(record: Message, event: Callable[[Message], Any]) -> Read[Any]:
    value, problem = None, None
    try:
        value = event(record)
    except PoisonRecord as error:
        problem = str(error)
    return Read(
        partition=record.partition() or 0,
        offset=record.offset() or 0,
        timestamp=record.timestamp()[1],
        key=record.key(),
        headers=dict(raw_headers(record)),
        value=value,
        problem=problem,
        raw=record.value() if problem is not None else None,
    )
