"""What a worker remembers of a subject, as the value of a changelog's record and back."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from braidstream.avro import AvroSchema, EventType, SchemaSource, known, read, split, write
from braidstream.deciding.join import Outcome, State
from braidstream.deciding.policy import Evidence
from braidstream.errors import FatalError
from braidstream.streaming import encoding

_MILLISECONDS = "timestamp-millis"
_EXAMPLE = State(
    b"event", ("model",), (Evidence("model", "1", 0.5),), 1, 2, Outcome(1, "action", complete=True), b"00-1-2-01"
)


class StateCodec:
    """Turns a `State` into a value of `decision_state` and back."""

    def __init__(self, event_type: EventType[Any], schemas: SchemaSource, topic: str) -> None:
        self._records = _Records(event_type, schemas, topic)
        example = self._records.encode(_datum("subject", _EXAMPLE))
        self._head = encoding.head(example, encoding.state(b"", "subject", _EXAMPLE))

    def encode(self, subject_id: str, state: State) -> bytes:
        """The record's value."""
        return encoding.state(self._head, subject_id, state)

    def decode(self, value: bytes) -> State:
        """The state; raises `PoisonRecord`."""
        datum = self._records.decode(value)
        outcome, traceparent = datum["outcome"], datum["traceparent"]
        return State(
            datum["event"],
            _shared(tuple(datum["expected"])),
            tuple(
                [
                    Evidence(sys.intern(e["model"]), sys.intern(e["model_version"]), e["value"])
                    for e in datum["evidence"]
                ]
            ),
            datum["first_seen_at"],
            datum["expires_at"],
            Outcome(outcome["revision"], sys.intern(outcome["action"]), outcome["complete"]) if outcome else None,
            traceparent.encode() if traceparent is not None else None,
        )


class HandledCodec:
    """Turns until when a subject is known to be handled, in milliseconds since 1970, into a `handled` and back."""

    def __init__(self, event_type: EventType[Any], schemas: SchemaSource, topic: str) -> None:
        self._records = _Records(event_type, schemas, topic)
        example = self._records.encode({"subject_id": "subject", "expires_at": 1})
        self._head = encoding.head(example, encoding.handled(b"", "subject", 1))

    def encode(self, subject_id: str, expires_at: int) -> bytes:
        """The record's value."""
        return encoding.handled(self._head, subject_id, expires_at)

    def decode(self, value: bytes) -> int:
        """The time; raises `PoisonRecord`."""
        expires_at: int = self._records.decode(value)["expires_at"]
        return expires_at


class _Records:
    """Reads and writes a changelog's records with fastavro, their times as milliseconds."""

    def __init__(self, event_type: EventType[Any], schemas: SchemaSource, topic: str) -> None:
        self._latest = _with_plain_times(event_type.latest)
        self._schemas = schemas
        self._id = schemas.id_of(event_type, f"{topic}-value")
        self._writers = {self._id: self._latest}

    def encode(self, datum: Mapping[str, Any]) -> bytes:
        return write(self._id, self._latest, datum)

    def decode(self, value: bytes) -> Any:
        """The latest version's datum; raises `PoisonRecord`."""
        schema_id, body = split(value)
        return read(self._writers.get(schema_id) or self._writer(schema_id), body, self._latest)

    def _writer(self, schema_id: int) -> AvroSchema:
        writer = self._writers[schema_id] = _with_plain_times(known(self._schemas, schema_id))
        return writer


def _datum(subject_id: str, state: State) -> dict[str, Any]:
    return {
        "subject_id": subject_id,
        **state._asdict(),
        "evidence": [evidence._asdict() for evidence in state.evidence],
        "outcome": state.outcome._asdict() if state.outcome is not None else None,
        "traceparent": state.traceparent.decode() if state.traceparent is not None else None,
    }


def _with_plain_times(schema: AvroSchema) -> AvroSchema:
    """The same schema, whose times are read as milliseconds; raises `FatalError` when they are something else."""
    return AvroSchema.from_text(json.dumps(_without_logical_types(json.loads(schema.text))))


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, dict):
        if (logical := schema.get("logicalType", _MILLISECONDS)) != _MILLISECONDS:
            raise FatalError(
                f"{logical} in a state's schema: braidstream/streaming/state_codecs.py takes times for "
                f"{_MILLISECONDS}, change both together"
            )
        return {key: _without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
    if isinstance(schema, list):
        return [_without_logical_types(item) for item in schema]
    return schema


def _shared(models: tuple[str, ...]) -> tuple[str, ...]:
    """One tuple for all subjects that expect the same models."""
    return _EXPECTED.setdefault(models, models)


_EXPECTED: dict[tuple[str, ...], tuple[str, ...]] = {}
