"""Writes many flat Avro records at once from columns: one pass of numpy over all of them for each field.

Every record has room for its longest form, and its fields are written in it from left to right: what a step leaves
behind the end of a field is overwritten by the next one, or lies in the room that is left between two records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from braidstream.avro import AvroSchema

Column: TypeAlias = NDArray[Any] | Sequence[Any]
"""The values of one field, one for each record; `ColumnWriter` says of which types."""

_Array = NDArray[Any]
_Ints = NDArray[np.int64]
_Flags = NDArray[np.bool_]

_VARINT_ROOM = 10


class _Page:
    """Room for n records, and where each of them is being written."""

    def __init__(self, room: _Ints) -> None:
        self._starts: _Ints = np.cumsum(room) - room
        self.at = self._starts
        self._bytes = np.zeros(room.sum(), np.uint8)

    def records(self) -> list[bytes]:
        data = self._bytes.tobytes()
        return [data[start:end] for start, end in zip(self._starts.tolist(), self.at.tolist(), strict=True)]

    def byte(self, values: NDArray[np.uint8] | int) -> None:
        self._bytes[self.at] = values
        self.at = self.at + 1

    def varint(self, values: _Ints) -> None:
        """Zig-zag, seven bits a byte: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding."""
        rest = ((values << 1) ^ (values >> 63)).view(np.uint64)
        at = self.at
        goes_on = np.ones(len(values), np.bool_)
        while goes_on.any():
            self.at = self.at + goes_on
            low = rest.astype(np.uint8) & 0x7F
            rest = rest >> np.uint64(7)
            goes_on = rest != 0
            self._bytes[at] = low | goes_on.view(np.uint8) << 7
            at = at + 1

    def number(self, values: _Array) -> None:
        """The bytes of the numbers as they lie in memory."""
        size = values.dtype.itemsize
        if len(values):
            # Numbers at any address: an unaligned view over the same memory.
            anywhere = np.ndarray((len(self._bytes) - size + 1,), values.dtype, self._bytes, 0, (1,))
            anywhere[self.at] = values
        self.at = self.at + size

    def text(self, values: Sequence[bytes]) -> None:
        lengths = _lengths(values)
        self.varint(lengths)
        end = self.at + lengths
        memory = self._bytes.data
        for first, last, value in zip(self.at.tolist(), end.tolist(), values, strict=True):
            memory[first:last] = value
        self.at = end


class _Checked(NamedTuple):
    """A column that can be written: the values, where they are null, and the bytes that each takes at most."""

    values: Any
    nulls: _Flags
    room: _Ints | int


def _lengths(values: Sequence[bytes]) -> _Ints:
    return np.fromiter(map(len, values), np.int64, len(values))


def _require(good: _Flags, values: _Array, what: str) -> None:
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(f"row {row}: {values[row]} is {what}")


def _array(column: Column, kinds: str, nan_is_null: bool = True) -> tuple[_Array, _Flags]:
    """The column's values and where it is null; raises `TypeError` unless its dtype is of one of these kinds."""
    array = np.asanyarray(column)
    values, nulls = np.ma.getdata(array), np.ma.getmaskarray(array)
    if values.dtype.kind not in kinds or values.ndim != 1:
        raise TypeError(f"a column of {values.dtype} and {values.ndim} dimensions cannot be written")
    if values.dtype.kind == "M":
        nulls = nulls | np.isnat(values)
    elif values.dtype.kind == "f" and nan_is_null:
        nulls = nulls | np.isnan(values)
    return values, nulls


def _whole(values: _Array, nulls: _Flags, low: int, high: int) -> _Ints:
    values = np.where(nulls, values.dtype.type(0), values)
    # Not `<= high`: as a float64 the highest long is one more than it is.
    good = (values >= low) & (values < high + 1)
    if values.dtype.kind == "f":
        good &= values == np.floor(values)
    _require(good, values, f"no whole number from {low} to {high}")
    return values.astype(np.int64)


_Check = Callable[[Column, bool], _Checked]


def _integers(bits: int) -> _Check:
    high = (1 << bits - 1) - 1

    def check(column: Column, _nullable: bool) -> _Checked:
        values, nulls = _array(column, "iuf")
        return _Checked(_whole(values, nulls, -high - 1, high), nulls, _VARINT_ROOM)

    return check


def _times(unit: str, bits: int) -> _Check:
    high = (1 << bits - 1) - 1

    def check(column: Column, _nullable: bool) -> _Checked:
        times, nulls = _array(column, "M")
        wanted, ticks = np.dtype(f"datetime64[{unit}]"), times.astype(np.int64)
        if np.can_cast(times.dtype, wanted, "safe"):  # to a finer unit, which cannot hold what is too far away
            most = np.array((1 << 63) - 1).astype(wanted).astype(times.dtype).astype(np.int64)
            _require(nulls | ((ticks >= -most) & (ticks <= most)), times, f"too far away for a time in {unit}")
        return _Checked(_whole(times.astype(wanted).astype(np.int64), nulls, -high - 1, high), nulls, _VARINT_ROOM)

    return check


def _floats(dtype: str) -> _Check:
    def check(column: Column, nullable: bool) -> _Checked:
        values, nulls = _array(column, "iuf", nan_is_null=nullable)
        with np.errstate(over="ignore"):
            written = values.astype(dtype)
        _require(np.isfinite(written) | ~np.isfinite(values), values, "too large for a float")
        return _Checked(written, nulls, written.dtype.itemsize)

    return check


def _booleans(column: Column, _nullable: bool) -> _Checked:
    values, nulls = _array(column, "biuf")
    return _Checked(_whole(values, nulls, 0, 1).astype(np.uint8), nulls, 1)


def _texts(kind: type[str] | type[bytes]) -> _Check:
    to_bytes: Callable[[Any], bytes] = str.encode if kind is str else bytes.__bytes__

    def one(row: int, value: Any) -> bytes:
        try:
            return b"" if value is None else to_bytes(value)
        except (TypeError, UnicodeEncodeError) as error:
            raise ValueError(f"row {row}: {value!r:.80} cannot be written as {kind.__name__}: {error}") from error

    def check(column: Column, _nullable: bool) -> _Checked:
        given = column.tolist() if isinstance(column, np.ndarray) else column
        nulls = np.zeros(len(given), np.bool_)
        try:
            values = list(map(to_bytes, given))
        except (TypeError, UnicodeEncodeError):
            nulls = np.array([value is None for value in given], np.bool_)
            values = [one(row, value) for row, value in enumerate(given)]
        return _Checked(values, nulls, _VARINT_ROOM + _lengths(values))

    return check


_Write = Callable[[_Page, Any], None]

_KINDS: Mapping[tuple[str, str | None], tuple[_Check, _Write]] = MappingProxyType(
    {
        ("int", None): (_integers(32), _Page.varint),
        ("int", "date"): (_times("D", 32), _Page.varint),
        ("long", None): (_integers(64), _Page.varint),
        ("long", "timestamp-millis"): (_times("ms", 64), _Page.varint),
        ("long", "timestamp-micros"): (_times("us", 64), _Page.varint),
        ("long", "local-timestamp-millis"): (_times("ms", 64), _Page.varint),
        ("long", "local-timestamp-micros"): (_times("us", 64), _Page.varint),
        ("float", None): (_floats("<f4"), _Page.number),
        ("double", None): (_floats("<f8"), _Page.number),
        ("boolean", None): (_booleans, _Page.byte),
        ("string", None): (_texts(str), _Page.text),
        ("bytes", None): (_texts(bytes), _Page.text),
    }
)


@dataclass(frozen=True)
class _Field:
    name: str
    check: _Check
    write_values: _Write
    null_branch: int | None
    """Which branch of the field's union is null; None when the field is no union."""

    @classmethod
    def of(cls, field: Mapping[str, Any]) -> _Field:
        name, branches = field["name"], field["type"]
        null_branch = None
        if isinstance(branches, list) and len(branches) == 2 and "null" in branches:
            null_branch = branches.index("null")
            branches = branches[1 - null_branch]
        kind = branches if isinstance(branches, Mapping) else {"type": branches}
        plain, logical = kind["type"], kind.get("logicalType")
        if not isinstance(plain, str) or (plain, logical) not in _KINDS:
            raise TypeError(f"the field {name} cannot be written from a column: its type is {field['type']}")
        return cls(name, *_KINDS[plain, logical], null_branch)

    def checked(self, columns: Mapping[str, Column], rows: int) -> _Checked:
        if self.name not in columns:
            raise ValueError(f"there is no column for the field {self.name}")
        column = columns[self.name]
        if len(column) != rows:
            raise ValueError(f"{self.name}: {len(column)} values for {rows} records")
        try:
            checked = self.check(column, self.null_branch is not None)
            if self.null_branch is None and checked.nulls.any():
                raise ValueError(f"row {np.argmax(checked.nulls)}: there is no value, and null is none for this field")
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self.name}, {error}") from error
        return checked

    def write(self, page: _Page, checked: _Checked) -> None:
        if self.null_branch is None:
            self.write_values(page, checked.values)
            return
        # A branch's number is a varint: zero is 0 and one is 2.
        page.byte(2 * (checked.nulls == bool(self.null_branch)).view(np.uint8))
        null_end = page.at
        self.write_values(page, checked.values)
        page.at = np.where(checked.nulls, null_end, page.at)


class ColumnWriter:
    """Encodes records of one flat schema from columns, each after `header`: `Codec.header` for Confluent's wire format.

    A field is an int, long, float, double, boolean, string, bytes, date, or a timestamp in milliseconds or microseconds
    (local or not), or a union of one of these and null. Raises `TypeError` for any other schema.
    """

    def __init__(self, schema: AvroSchema, header: bytes) -> None:
        parsed = schema.parsed
        if not isinstance(parsed, Mapping) or parsed["type"] != "record":
            raise TypeError("only records can be written from columns")
        self._fields = [_Field.of(field) for field in parsed["fields"]]
        self._header = header

    def encode(self, columns: Mapping[str, Column], rows: int) -> list[bytes]:
        """The records, each as fastavro's `schemaless_writer` writes it, after the header; other columns are ignored.

        Numbers and booleans are numpy arrays (or lists) of numbers, times of datetime64 in any unit, UTC unless the
        type is a local one, and cut to the type's unit; texts are lists or arrays of str, or of bytes. Null is NaN,
        NaT, None, or a masked place in a numpy masked array; in a float field that is no union NaN is itself. Raises
        `ValueError`, naming field and row (from 0), for a value that the field's type cannot hold, and `TypeError` for
        a column of another kind.
        """
        checked = [field.checked(columns, rows) for field in self._fields]
        room = np.full(rows, len(self._header) + len(self._fields), np.int64)
        for column in checked:
            room += column.room
        page = _Page(room)
        for byte in self._header:
            page.byte(byte)
        for field, column in zip(self._fields, checked, strict=True):
            field.write(page, column)
        return page.records()
