"""Records as people and programs read them: decoded where that can be done, and never refused."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import Any

from confluent_kafka import Message
from pydantic import ValidationError

from braidstream.avro import AvroSchema, SchemaSource, known, read, split
from braidstream.errors import PoisonRecord
from braidstream.pipelines import Topic
from braidstream.streaming.dead_letters import raw_headers
from braidstream.streaming.replay import time_of

_SCHEMAS = 1000


@dataclass(frozen=True)
class Undecoded:
    """A value that cannot be decoded, and why."""

    reason: str
    value: bytes


@dataclass(frozen=True)
class Record:
    """One record of a topic; `value` is what Avro gave, None for a tombstone, or `Undecoded`."""

    partition: int
    offset: int
    timestamp: datetime | None
    key: bytes | None
    headers: Mapping[str, bytes]
    value: Any


def is_of(topic: Topic[Any], record: Record) -> bool:
    """Whether the value is what the topic is for, whatever later versions add to it; else it is somebody else's."""
    try:
        topic.event_type.model.model_validate(record.value, extra="ignore")
    except ValidationError:
        return False
    return True


class Decoder:
    """Decodes by the schema that each record names: nothing is registered, and no model's rules are applied."""

    def __init__(self, schemas: SchemaSource) -> None:
        self._schemas = schemas
        # Also those that nobody knows: the registry is not asked for each record of somebody else's.
        self._schema = lru_cache(_SCHEMAS)(self._look_up)

    def __call__(self, message: Message) -> Record:
        """The record; raises `RetriableError` when the registry cannot be asked for its schema."""
        return Record(
            int(message.partition() or 0),
            int(message.offset() or 0),
            time_of(message),
            message.key(),
            {name: value or b"" for name, value in raw_headers(message)},
            self._value(message.value()),
        )

    def _value(self, value: bytes | None) -> Any:
        if value is None:
            return None
        try:
            schema_id, body = split(value)
            schema = self._schema(schema_id)
            return Undecoded(schema, value) if isinstance(schema, str) else read(schema, body)
        except PoisonRecord as error:
            return Undecoded(str(error), value)

    def _look_up(self, schema_id: int) -> AvroSchema | str:
        """The schema, or why nothing is read by it."""
        try:
            schema = known(self._schemas, schema_id)
        except PoisonRecord as error:
            return str(error)
        return f"schema id {schema_id} is not safe to be read: {why}" if (why := schema.unsafe) else schema


def as_json(record: Record) -> dict[str, Any]:
    """The record for `json.dumps`.

    Times are in ISO 8601. Keys and headers are text, or `{"base64": …}` where they are not UTF-8; bytes in a value are
    base64. NaN and the infinities, which JSON lacks, are strings. In place of `value`, what cannot be decoded has
    `undecoded` with a reason and the bytes. Of a header that comes twice the last one counts.
    """
    value = record.value
    return {
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": iso(record.timestamp),
        "key": text_or_base64(record.key),
        "headers": {name: text_or_base64(header) for name, header in record.headers.items()},
        **(
            {"undecoded": {"reason": value.reason, "base64": _base64(value.value)}}
            if isinstance(value, Undecoded)
            else {"value": plain(value)}
        ),
    }


def plain(value: Any) -> Any:
    """What Avro gave, in JSON's types."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return _base64(value)
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime | date | time) else str(value)


def as_line(record: Record) -> str:
    """The record on one line, its parts separated by tabs: time, partition/offset, key, value and headers."""
    parts = [iso(record.timestamp) or "-", f"{record.partition}/{record.offset}", key_text(record)]
    if isinstance(record.value, Undecoded):
        parts.append(f"undecoded: {record.value.reason}: {_base64(record.value.value)}")
    else:
        parts.append(compact(plain(record.value)))
    if record.headers:
        parts.append(compact({name: text_or_base64(header) for name, header in record.headers.items()}))
    return "\t".join(printable(part) for part in parts)


def key_text(record: Record) -> str:
    """The key in words."""
    if record.key is None:
        return "null"
    key = text_or_base64(record.key)
    return key if isinstance(key, str) else f"base64:{_base64(record.key)}"


def header_text(value: bytes) -> str:
    """A header's value in words."""
    text = text_or_base64(value)
    return text if isinstance(text, str) else f"base64:{_base64(value)}"


def word(value: Any) -> str:
    """A value in few characters, as people read it."""
    if isinstance(value, dict):
        return "{" + " ".join(f"{name}={word(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(word, value)) + "]"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S.%f}"[:23]
    return value if isinstance(value, str) else compact(plain(value))


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def printable(text: str) -> str:
    """The text with everything escaped that a terminal might take for a command."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def text_or_base64(value: bytes | None) -> Any:
    """For `json.dumps`: text, `{"base64": …}` where it is not UTF-8, or None."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": _base64(value)}


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def iso(timestamp: datetime | None) -> str | None:
    """A time in ISO 8601, to the millisecond."""
    return timestamp.isoformat(timespec="milliseconds") if timestamp is not None else None


def to_seconds(timestamp: datetime | None) -> str:
    """A time as people read it."""
    return f"{timestamp.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if timestamp is not None else "-"
