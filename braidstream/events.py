"""A batch of events, as columns and one by one; and reading one from Avro without making an object for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, overload

import numpy as np
from pydantic import BaseModel

from braidstream.avro import E, EventType
from braidstream.column_reader import ColumnReader, RawBatch, RawColumn
from braidstream.columns import Array, Columns, FieldType, Flags, field_types

_UNITS: Mapping[str, tuple[int, bool]] = MappingProxyType(
    {
        "timestamp-millis": (1000, True),
        "timestamp-micros": (1, True),
        "local-timestamp-millis": (1000, False),
        "local-timestamp-micros": (1, False),
    }
)
"""For each logical type that is a time: its unit in microseconds, and whether it has a zone."""
_ZONES: Mapping[bool, str] = MappingProxyType({True: "aware", False: "naive"})
"""Pydantic's names for times with and without a zone."""
_KINDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "int": frozenset({"int", "float"}),
        "long": frozenset({"int", "float"}),
        "float": frozenset({"float"}),
        "double": frozenset({"float"}),
        "boolean": frozenset({"bool"}),
        "string": frozenset({"str"}),
    }
)
"""For each Avro type without a logical one, pydantic's types that take its values as they are."""
_FIRST_TIME, _LAST_TIME = np.array([datetime.min, datetime.max], "datetime64[us]").astype(np.int64).tolist()  # noqa: DTZ901
"""What a datetime can hold, in microseconds since 1970."""


class Events(Sequence[E]):
    """Validated events in order: `keys` and `columns` for all of them; each event is made when it is asked for."""

    def __init__(self, keys: Sequence[str], columns: Columns, event: Callable[[int], E]) -> None:
        self.keys = keys
        self.columns = columns
        self._event = event

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> E: ...
    @overload
    def __getitem__(self, index: slice) -> Events[E]: ...
    def __getitem__(self, index: int | slice) -> E | Events[E]:
        if not isinstance(index, slice):
            return self._event(index)
        rows = range(len(self))[index]
        return Events(self.keys[index], self.columns.at(index), lambda row: self._event(rows[row]))

    def at(self, rows: Sequence[int]) -> Events[E]:
        """Some of the events."""
        keys = [self.keys[row] for row in rows]
        return Events(keys, self.columns.at(np.array(rows, np.int64)), lambda row: self._event(rows[row]))

    @classmethod
    def of(cls, model: type[E], events: Sequence[E], keys: Sequence[str]) -> Events[E]:
        """A batch of events that are there already."""
        return cls(keys, Columns.of(model, events), events.__getitem__)


def columns_of(events: Sequence[E]) -> Columns:
    """The columns of a batch, or of a plain list of events, which must not be empty."""
    return events.columns if isinstance(events, Events) else Columns.of(type(events[0]), events)


class _Field:
    """One field of a flat record: from what Avro holds to a column, and whether pydantic would take each value."""

    def __init__(self, name: str, field: FieldType, unit: int | None) -> None:
        self._name = name
        self._field = field
        self._unit = unit

    @classmethod
    def of(cls, avro: Mapping[str, Any], field: FieldType) -> _Field | None:
        """None when only the record-by-record reader can tell what becomes of the field's values."""
        branches = avro["type"] if isinstance(avro["type"], list) else [avro["type"]]
        (value, *others) = [branch for branch in branches if branch != "null"]
        logical = value.get("logicalType") if isinstance(value, Mapping) else None
        plain = value["type"] if isinstance(value, Mapping) else value
        if others or not field.understood:
            return None
        if logical is None:
            return cls(avro["name"], field, None) if field.kind in _KINDS.get(plain, ()) else None
        unit, is_aware = _UNITS.get(logical, (0, False))
        fits = unit and field.kind == "datetime" and field.rules.get("tz_constraint") == _ZONES[is_aware]
        return cls(avro["name"], field, unit) if fits else None

    def check(self, batch: RawBatch, texts: _Texts) -> Flags:
        raw = batch.columns[self._name]
        if self._field.kind == "str":
            good = texts.valid(raw) & self._field.accepts(texts.lengths(raw))
        elif self._unit is not None:
            ticks = raw.values
            good = (ticks >= -(-_FIRST_TIME // self._unit)) & (ticks <= _LAST_TIME // self._unit)
            good &= self._field.accepts(self._times(raw))
        else:
            good = self._field.accepts(raw.values)
        if raw.nulls is None:
            return good
        return good | raw.nulls if self._field.nullable else good & ~raw.nulls

    def column(self, batch: RawBatch, texts: _Texts) -> Array:
        raw = batch.columns[self._name]
        if self._field.kind == "str":
            return texts.column(raw)
        column = self._times(raw) if self._unit is not None else raw.values.astype(self._field.dtype, copy=False)
        if raw.nulls is not None and self._field.nullable:
            column = np.where(raw.nulls, np.array(None, column.dtype), column)
        return column

    def _times(self, raw: RawColumn) -> Array:
        assert self._unit is not None
        return np.asarray((raw.values * self._unit).view("datetime64[us]"))


class _Texts:
    """The text in a batch's buffer."""

    def __init__(self, batch: RawBatch) -> None:
        self._buffer = batch.buffer
        self._rows = batch.readable
        # One character a byte: for ASCII, slices of it are the text itself.
        self._latin = batch.buffer.decode("latin-1")
        self._bytes = np.frombuffer(batch.buffer, np.uint8)

    def valid(self, raw: RawColumn) -> Flags:
        """Which texts are UTF-8."""
        good = np.ones(len(raw.values), np.bool_)
        for row in self._not_ascii(raw):
            good[row] = self._text(raw, row) is not None
        return good

    def lengths(self, raw: RawColumn) -> Array:
        """The lengths in characters."""
        lengths = np.asarray(raw.values[:, 1] - raw.values[:, 0])
        for row in self._not_ascii(raw):
            lengths[row] = len(self._text(raw, row) or "")
        return lengths

    def column(self, raw: RawColumn) -> Array:
        """The texts; None where there is none, empty where it is not UTF-8."""
        column = np.empty(len(raw.values), object)
        column[:] = [self._latin[start:end] for start, end in raw.values.tolist()]
        for row in self._not_ascii(raw):
            column[row] = self._text(raw, row) or ""
        if raw.nulls is not None:
            column[raw.nulls] = None
        return column

    def _not_ascii(self, raw: RawColumn) -> list[int]:
        if not len(raw.values):
            return []
        # The bytes between two bounds or-ed together; of an empty text it is the byte behind it, which does no harm.
        union = np.bitwise_or.reduceat(self._bytes, raw.values.reshape(-1))[::2]
        rows: list[int] = np.flatnonzero((union > 127) & self._rows).tolist()
        return rows

    def _text(self, raw: RawColumn, row: int) -> str | None:
        start, end = raw.values[row]
        try:
            return self._buffer[start:end].decode()
        except UnicodeDecodeError:
            return None


class FlatReader:
    """Reads and validates events of a flat type as columns: all of a batch at once."""

    def __init__(self, reader: ColumnReader, fields: Mapping[str, _Field]) -> None:
        self._reader = reader
        self._fields = fields

    @classmethod
    def of(cls, event_type: EventType[Any], key: str) -> FlatReader | None:
        """The reader of the latest version; None when the type, or its key, has to be read event by event."""
        reader = ColumnReader.of(event_type.latest)
        model: type[BaseModel] = event_type.model
        types = field_types(model)
        if reader is None or types is None:
            return None
        avro = {field["name"]: field for field in event_type.latest.parsed["fields"]}
        if avro.keys() != types.keys() or types[key].kind != "str" or isinstance(avro[key]["type"], list):
            return None
        fields = {name: _Field.of(avro[name], types[name]) for name in types}
        known = {name: field for name, field in fields.items() if field is not None}
        return cls(reader, known) if len(known) == len(fields) else None

    def read(self, values: Sequence[bytes], header: bytes) -> tuple[Columns, Flags]:
        """The columns of records in the wire format that begin with this header, and which rows of them are valid.

        What is not valid may still be for the record-by-record reader, which is also to explain it.
        """
        batch = self._reader.read(values, header)
        texts = _Texts(batch)
        valid = batch.readable.copy()
        for field in self._fields.values():
            valid &= field.check(batch, texts)
        make = {name: partial(field.column, batch, texts) for name, field in self._fields.items()}
        return Columns(len(values), make), valid
