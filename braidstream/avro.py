"""Avro in Confluent's wire format: a zero byte, the schema id in four bytes, then the Avro body.

https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import fastavro
from fastavro.read import SchemaResolutionError
from pydantic import BaseModel, ValidationError

from braidstream.errors import PoisonRecord, SettingsError

E = TypeVar("E", bound=BaseModel)

_HEADER = struct.Struct(">BI")
HEADER_SIZE = _HEADER.size
_LOCAL_IDS = 1 << 30
_ONE_BYTE = [bytes((value,)) for value in range(0x80)]


def _without_docs(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _without_docs(value) for key, value in schema.items() if key != "doc"}
    if isinstance(schema, list):
        return [_without_docs(item) for item in schema]
    return schema


@dataclass(frozen=True, slots=True)
class AvroSchema:
    """One version of a schema: its `text` as in the file, and `parsed` for fastavro."""

    text: str
    parsed: Any

    @classmethod
    def from_text(cls, text: str) -> AvroSchema:
        """Parse a schema; raises `SettingsError` when it is none."""
        try:
            return cls(text, fastavro.parse_schema(json.loads(text)))
        except Exception as error:
            raise SettingsError(f"not an Avro schema: {error}") from error

    @property
    def unsafe(self) -> str | None:
        """Why a short record of this schema may never be read to its end; None when it can.

        What is nested in itself can be nested so deep that fastavro overflows the stack, which ends the process. An
        array of what takes no bytes can be as long as it says.
        """
        return _unsafe(self.parsed, {}, frozenset())

    @property
    def local_id(self) -> int:
        """The id used without a registry: 2^30 plus the low 30 bits of the SHA-256 of the minified, doc-less text."""
        minified = json.dumps(_without_docs(json.loads(self.text)), separators=(",", ":"))
        digest = hashlib.sha256(minified.encode()).digest()
        return _LOCAL_IDS + (int.from_bytes(digest, "big") & (_LOCAL_IDS - 1))


def _unsafe(schema: Any, named: dict[str, Any], around: frozenset[str]) -> str | None:
    """As `AvroSchema.unsafe`, of a part of a schema: with what was named before it, and the names of what is around."""
    if isinstance(schema, str):
        return f"{schema} is nested in itself" if schema in around else None
    if isinstance(schema, list):
        return next(filter(None, (_unsafe(branch, named, around) for branch in schema)), None)
    if "name" in schema:
        named[schema["name"]] = schema
    kind = schema["type"]
    if kind == "record":
        inside = [field["type"] for field in schema["fields"]]
        return _unsafe(inside, named, around | {schema["name"]})
    if kind == "array":
        empty = "an array holds what takes no bytes" if _takes_no_bytes(schema["items"], named) else None
        return _unsafe(schema["items"], named, around) or empty
    if kind == "map":
        return _unsafe(schema["values"], named, around)
    return None if isinstance(kind, str) else _unsafe(kind, named, around)


def _takes_no_bytes(schema: Any, named: Mapping[str, Any]) -> bool:
    if isinstance(schema, str):
        return schema == "null" or (schema in named and _takes_no_bytes(named[schema], named))
    if isinstance(schema, list):
        return False
    if schema["type"] == "record":
        return all(_takes_no_bytes(field["type"], named) for field in schema["fields"])
    if schema["type"] == "fixed":
        return bool(schema["size"] == 0)
    return _takes_no_bytes(schema["type"], named)


@dataclass(frozen=True)
class EventType(Generic[E]):
    """A pydantic model and every version of its Avro schema, oldest first."""

    model: type[E]
    versions: tuple[AvroSchema, ...]

    @classmethod
    def load(cls, model: type[E], name: str, folder: Path) -> EventType[E]:
        """Read `<folder>/<name>.v1.avsc`, `.v2.avsc`, …; the highest version is the one written.

        Raises `SettingsError` when there is none, or a version that is not safe to be read.
        """
        numbered = {
            int(match[1]): path
            for path in folder.glob(f"{name}.v*.avsc")
            if (match := re.fullmatch(rf"{re.escape(name)}\.v(\d+)\.avsc", path.name))
        }
        if not numbered:
            raise SettingsError(f"no schema {name}.v1.avsc in {folder}")
        versions = tuple(AvroSchema.from_text(numbered[n].read_text()) for n in sorted(numbered))
        for number, version in zip(sorted(numbered), versions, strict=True):
            if why := version.unsafe:
                raise SettingsError(f"{numbered[number]} is no schema to be read: {why}")
        return cls(model, versions)

    @property
    def latest(self) -> AvroSchema:
        """The version that is written, and that every other version is read as."""
        return self.versions[-1]


class SchemaSource(Protocol):
    """Where schema ids come from: the repo's files, or a registry."""

    def id_of(self, event_type: EventType[Any], subject: str) -> int:
        """The id under which the latest version is written; registers it where there is a registry."""
        ...

    def schema(self, schema_id: int) -> AvroSchema | None:
        """The schema with this id, or None when nobody knows it; raises `RetriableError` when that cannot be told."""
        ...


class LocalSchemas:
    """Ids derived from the schemas themselves, for use without a registry."""

    def __init__(self, *event_types: EventType[Any]) -> None:
        self._by_id = {version.local_id: version for event_type in event_types for version in event_type.versions}

    def id_of(self, event_type: EventType[Any], subject: str) -> int:
        """The local id of the latest version; the subject plays no part."""
        return event_type.latest.local_id

    def schema(self, schema_id: int) -> AvroSchema | None:
        """One of the versions given, or None."""
        return self._by_id.get(schema_id)


def known(schemas: SchemaSource, schema_id: int) -> AvroSchema:
    """The schema with this id; raises `PoisonRecord` when nobody knows it, saying where it may be known."""
    schema = schemas.schema(schema_id)
    if schema is None:
        where = "it is a registry's (SCHEMA_REGISTRY_URL)" if schema_id < _LOCAL_IDS else "no schema here has it"
        raise PoisonRecord("VALUE_CONVERTER", f"schema id {schema_id} is not known: {where}")
    return schema


def split(value: bytes | None) -> tuple[int, bytes]:
    """The schema id and the Avro body of a record's value; raises `PoisonRecord` when it is not in the wire format."""
    if value is None:
        raise PoisonRecord("VALUE_CONVERTER", "the value is null")
    if len(value) < HEADER_SIZE or value[0] != 0:
        raise PoisonRecord("VALUE_CONVERTER", f"not in Confluent's wire format: it starts with {value[:5]!r}")
    return _HEADER.unpack_from(value)[1], value[HEADER_SIZE:]


def read(schema: AvroSchema, body: bytes, reader: AvroSchema | None = None) -> Any:
    """Read one whole Avro body; raises `PoisonRecord` on anything else, trailing bytes included."""
    buffer = io.BytesIO(body)
    try:
        # The reader's schema is only given when it differs: resolving costs time on every record.
        datum = fastavro.schemaless_reader(
            buffer, schema.parsed, None if reader is None or reader.text == schema.text else reader.parsed
        )
    except SchemaResolutionError as error:
        # Its message holds both schemas.
        reason = f"not readable as {_name(reader or schema)}: it was written as {_name(schema)}"
        raise PoisonRecord("VALUE_CONVERTER", reason) from error
    except Exception as error:
        reason = f"not readable as {_name(schema)}: {type(error).__name__}: {error}"
        raise PoisonRecord("VALUE_CONVERTER", reason) from error
    if left := len(body) - buffer.tell():
        raise PoisonRecord("VALUE_CONVERTER", f"{left} bytes are left after the Avro record")
    return datum


def _name(schema: AvroSchema) -> str:
    return str(schema.parsed.get("name", "Avro")) if isinstance(schema.parsed, dict) else "Avro"


def write(schema_id: int, schema: AvroSchema, datum: Mapping[str, Any]) -> bytes:
    """Encode one record in the wire format."""
    buffer = io.BytesIO()
    buffer.write(_HEADER.pack(0, schema_id))
    fastavro.schemaless_writer(buffer, schema.parsed, datum)
    return buffer.getvalue()


def long_bytes(value: int) -> bytes:
    """An Avro `int` or `long`: zig-zag, then seven bits a byte, the lowest first."""
    rest = (value << 1) ^ (value >> 63)
    if rest < 0x80:
        return _ONE_BYTE[rest]
    content = bytearray()
    while rest > 0x7F:
        content.append(rest & 0x7F | 0x80)
        rest >>= 7
    content.append(rest)
    return bytes(content)


def string_bytes(content: bytes) -> bytes:
    """An Avro `string` or `bytes`."""
    return long_bytes(len(content)) + content


class Codec(Generic[E]):
    """Reads and writes the events of one topic; every known version is read as the latest."""

    def __init__(self, event_type: EventType[E], schemas: SchemaSource, topic: str) -> None:
        self._type = event_type
        self._schemas = schemas
        self._id = schemas.id_of(event_type, f"{topic}-value")
        self._writers: dict[int, AvroSchema] = {self._id: event_type.latest}
        self._unsafe: dict[int, str] = {}
        self.header = _HEADER.pack(0, self._id)
        """What every value begins with that is written here."""

    def encode(self, event: E) -> bytes:
        """The record's value."""
        return write(self._id, self._type.latest, event.model_dump())

    def decode(self, value: bytes | None) -> E:
        """The event, validated; raises `PoisonRecord`, or `RetriableError` when the registry cannot be asked."""
        schema_id, body = split(value)
        datum = read(self._writer(schema_id), body, self._type.latest)
        try:
            return self._type.model.model_validate(datum)
        except ValidationError as error:
            raise PoisonRecord("VALUE_CONVERTER", explain(error)) from error

    def _writer(self, schema_id: int) -> AvroSchema:
        writer = self._writers.get(schema_id)
        if writer is None:
            writer = self._writers[schema_id] = known(self._schemas, schema_id)
            if why := writer.unsafe:
                self._unsafe[schema_id] = why
        if schema_id in self._unsafe:
            raise PoisonRecord(
                "VALUE_CONVERTER", f"schema id {schema_id} is not safe to be read: {self._unsafe[schema_id]}"
            )
        return writer


def explain(error: ValidationError) -> str:
    """A validation error in one line: each field, its value and what is wrong with it."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'record'} = {item['input']!r:.80}: {item['msg']}"
        for item in error.errors(include_url=False)
    )
