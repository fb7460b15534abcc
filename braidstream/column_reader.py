"""Reads many flat Avro records at once, as columns: one pass of numpy over all of them for each field.

Every record is read within its own bounds, so that a broken one changes nothing about its neighbours. What is not
plainly a record of the schema is not read here but left to the record-by-record reader, which accepts it or explains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from braidstream.avro import AvroSchema

_Ints = NDArray[np.int64]
_Words = NDArray[np.uint64]
_Flags = NDArray[np.bool_]

_PADDING = bytes(8)
_CONTINUE = np.uint64(0x8080808080808080)
_DATA = np.uint64(0x7F7F7F7F7F7F7F7F)


class RawColumn(NamedTuple):
    """One field of n records.

    `values` are int64 (`int`, `long` and times, in the schema's unit), float64 or bool; for `string` they are the
    bounds of the text in the batch's buffer, of shape (n, 2). `nulls` says where there is no value; None when there
    is one everywhere.
    """

    values: NDArray[Any]
    nulls: _Flags | None


class RawBatch(NamedTuple):
    """Records read as columns; only the rows that are `readable` mean anything. `buffer` holds their text."""

    columns: Mapping[str, RawColumn]
    readable: _Flags
    buffer: bytes


class _Cursor:
    """Where each record is being read."""

    def __init__(self, buffer: bytes, starts: _Ints, ends: _Ints) -> None:
        self.at = starts
        self.ends = ends
        self.good = np.ones(len(starts), np.bool_)
        last = len(buffer) - 8
        self._bytes = np.frombuffer(buffer, np.uint8)
        # Eight bytes from any address: unaligned views over the same memory.
        self._words: _Words = np.ndarray((last + 1,), np.dtype("<u8"), buffer, 0, (1,))
        self._doubles: NDArray[np.float64] = np.ndarray((last + 1,), np.dtype("<f8"), buffer, 0, (1,))
        self._floats: NDArray[np.float32] = np.ndarray((last + 1,), np.dtype("<f4"), buffer, 0, (1,))

    def long(self) -> _Ints:
        """A zig-zag varint of up to eight bytes: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding."""
        words = self._words[self.at]
        stops = ~words & _CONTINUE
        self.good = self.good & (stops != 0)
        # All bits up to the top bit of the first byte that does not continue.
        mask = stops ^ (stops - np.uint64(1))
        self._advance(np.bitwise_count(mask).astype(np.int64) >> 3)
        bits = words & mask & _DATA
        bits = (bits & np.uint64(0x007F007F007F007F)) | ((bits >> np.uint64(1)) & np.uint64(0x3F803F803F803F80))
        bits = (bits & np.uint64(0x00003FFF00003FFF)) | ((bits >> np.uint64(2)) & np.uint64(0x0FFFC0000FFFC000))
        bits = (bits & np.uint64(0x000000000FFFFFFF)) | ((bits >> np.uint64(4)) & np.uint64(0x00FFFFFFF0000000))
        signed = bits.view(np.int64)
        return (signed >> 1) ^ -(signed & 1)

    def double(self) -> NDArray[np.float64]:
        values = self._doubles[self.at]
        self._advance(8)
        return values

    def float(self) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):  # a signalling NaN
            values = self._floats[self.at].astype(np.float64)
        self._advance(4)
        return values

    def boolean(self) -> _Flags:
        values = self._bytes[self.at]
        self.good = self.good & (values <= 1)
        self._advance(1)
        return np.equal(values, 1)

    def text(self) -> _Ints:
        lengths = self.long()
        self.good = self.good & (lengths >= 0)
        starts = self.at
        self._advance(np.where(self.good, lengths, 0))
        return np.stack((starts, self.at), axis=1)

    def expect(self, content: bytes) -> None:
        """Go on behind these bytes, which have to be here."""
        start = self.at
        self._advance(len(content))
        for index, byte in enumerate(content):
            self.good = self.good & (self._bytes[np.minimum(start + index, self.ends)] == byte)

    def is_branch(self, branch: int) -> _Flags:
        """Whether a union of two branches holds this one."""
        branches = self.long()
        self.good = self.good & ((branches == 0) | (branches == 1))
        return np.equal(branches, branch)

    def _advance(self, by: _Ints | int) -> None:
        at = self.at + by
        self.good = self.good & (at <= self.ends)
        self.at = np.minimum(at, self.ends)


_Read = Callable[[_Cursor], NDArray[Any]]

_READ: Mapping[str, _Read] = MappingProxyType(
    {
        "int": _Cursor.long,
        "long": _Cursor.long,
        "float": _Cursor.float,
        "double": _Cursor.double,
        "boolean": _Cursor.boolean,
        "string": _Cursor.text,
    }
)


@dataclass(frozen=True)
class _Field:
    name: str
    read: _Read
    null_branch: int | None
    """Which branch of the field's union is null; None when the field is no union."""


def _field(field: Mapping[str, Any]) -> _Field | None:
    is_union = isinstance(field["type"], list)
    branches = field["type"] if is_union else [field["type"]]
    kinds = [branch["type"] if isinstance(branch, Mapping) else branch for branch in branches]
    values = [kind for kind in kinds if kind != "null"]
    if len(values) != 1 or values[0] not in _READ or len(kinds) != 1 + is_union:
        return None
    return _Field(field["name"], _READ[values[0]], kinds.index("null") if is_union else None)


class ColumnReader:
    """Reads records of one flat schema: fields of primitive types (not bytes), and unions of one of them with null."""

    def __init__(self, fields: Sequence[_Field]) -> None:
        self._fields = fields

    @classmethod
    def of(cls, schema: AvroSchema) -> ColumnReader | None:
        """The reader of this schema; None when it is not flat."""
        fields = [_field(field) for field in schema.parsed.get("fields", ())] if isinstance(schema.parsed, dict) else []
        known = [field for field in fields if field is not None]
        return cls(known) if known and len(known) == len(fields) else None

    def read(self, values: Sequence[bytes], header: bytes) -> RawBatch:
        """Read the values that begin with this header and then hold one whole record; the others are not readable."""
        buffer = b"".join((*values, _PADDING))
        ends = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
        starts = np.concatenate((np.zeros(1, np.int64), ends[:-1])) if len(values) else ends
        cursor = _Cursor(buffer, starts, ends)
        cursor.expect(header)
        columns = {field.name: self._column(cursor, field) for field in self._fields}
        return RawBatch(columns, cursor.good & (cursor.at == ends), buffer)

    def _column(self, cursor: _Cursor, field: _Field) -> RawColumn:
        if field.null_branch is None:
            return RawColumn(field.read(cursor), None)
        nulls = cursor.is_branch(field.null_branch)
        start = cursor.at
        good = cursor.good
        values = field.read(cursor)
        cursor.at = np.where(nulls, start, cursor.at)
        cursor.good = np.where(nulls, good, cursor.good)
        return RawColumn(values, nulls)
