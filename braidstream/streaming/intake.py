"""From records to events: many at once where that can be, one by one where a record is in doubt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple

import numpy as np
from confluent_kafka import Message

from braidstream.avro import Codec, E, SchemaSource
from braidstream.columns import Columns, Flags
from braidstream.errors import PoisonRecord
from braidstream.events import Events, FlatReader
from braidstream.pipelines import Topic

FEW = 32
"""Up to this many records are read faster one by one: a pass over columns costs what 30 records cost."""


class Read(NamedTuple, Generic[E]):
    """A batch that was read: the events in order, where in the batch each was, and why the others are none."""

    events: Events[E]
    indexes: Sequence[int]
    errors: dict[int, Exception]


class Intake(Generic[E]):
    """Reads the records of one topic, and refuses those whose key is not their event's."""

    def __init__(self, topic: Topic[E], schemas: SchemaSource, topic_name: str) -> None:
        self.name = topic_name
        self._topic = topic
        self._codec: Codec[E] = Codec(topic.event_type, schemas, topic_name)
        self._flat = FlatReader.of(topic.event_type, topic.key)

    def decode(self, value: bytes) -> E:
        """The event of a value alone."""
        return self._codec.decode(value)

    def read(self, record: Message) -> E:
        """The event of a record; raises `PoisonRecord`."""
        event = self._codec.decode(record.value())
        key = self._topic.key_of(event)
        if record.key() != key.encode():
            raise PoisonRecord(
                "KEY_CONVERTER", f"the key {record.key()!r:.80} is not the {self._topic.key} {key!r:.80}"
            )
        return event

    def read_all(self, records: Sequence[Message]) -> Read[E]:
        """The events of these records; the same ones that `read` gives."""
        if self._flat is None or len(records) <= FEW:
            return self._one_by_one(records, range(len(records)))
        columns, valid = self._flat.read([record.value() or b"" for record in records], self._codec.header)
        keys = columns[self._topic.key].tolist()
        valid &= [record.key() == key.encode() for record, key in zip(records, keys, strict=True)]
        if valid.all():
            return Read(Events(keys, columns, lambda row: self.read(records[row])), range(len(records)), {})
        return self._mixed(records, columns, valid)

    def _one_by_one(self, records: Sequence[Message], indexes: Sequence[int]) -> Read[E]:
        events: dict[int, E] = {}
        errors: dict[int, Exception] = {}
        for index in indexes:
            try:
                events[index] = self.read(records[index])
            except PoisonRecord as error:
                errors[index] = error
        read = list(events.values())
        keys = [self._topic.key_of(event) for event in read]
        return Read(Events.of(self._topic.event_type.model, read, keys), list(events), errors)

    def _mixed(self, records: Sequence[Message], columns: Columns, valid: Flags) -> Read[E]:
        """Some records are not plainly valid: they are read one by one, and take their places among the others."""
        doubtful = self._one_by_one(records, np.flatnonzero(~valid).tolist())
        good = columns.at(valid)
        if doubtful.events:
            late = np.zeros(len(records), np.bool_)
            late[list(doubtful.indexes)] = True
            either = valid | late
            good = Columns.merged([(valid[either], good), (late[either], doubtful.events.columns)])
            valid = either
        indexes: list[int] = np.flatnonzero(valid).tolist()
        events = Events(good[self._topic.key].tolist(), good, lambda row: self.read(records[indexes[row]]))
        return Read(events, indexes, doubtful.errors)
