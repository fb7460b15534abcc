"""Records written from columns are, byte for byte, what fastavro writes one by one."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import fastavro
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from braidstream.avro import AvroSchema
from braidstream.column_writer import Column, ColumnWriter

ID = 0x01020304
HEADER = struct.pack(">BI", 0, ID)
INT = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([-(2**31), 2**31 - 1, -65, -64, 63, 64])
LONG = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1, 2**55, -(2**55) - 1, 2**62])
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a local time has no zone
LONG_TEXT = "ü" * 300


def milliseconds(time: datetime) -> datetime:
    return time - timedelta(microseconds=time.microsecond % 1000)


class Kind(NamedTuple):
    """An Avro type, the values of it that are tried, and the dtype of its columns; None stands for lists."""

    avro: Any
    values: st.SearchStrategy[Any]
    dtype: str | None


def logical(plain: str, name: str) -> dict[str, str]:
    return {"type": plain, "logicalType": name}


KINDS = [
    Kind("int", INT, "int32"),
    Kind("long", LONG, "int64"),
    Kind("long", st.integers(0, 2**64 - 1).map(lambda value: value >> 1), "uint64"),
    Kind("int", st.integers(-128, 127), "int8"),
    Kind("float", st.floats(width=32, allow_nan=False), "float32"),
    Kind("double", st.floats(allow_nan=False), "float64"),
    Kind("boolean", st.booleans(), "bool"),
    Kind("string", st.text() | st.just(LONG_TEXT), None),
    Kind("bytes", st.binary() | st.just(LONG_TEXT.encode()), None),
    Kind(logical("int", "date"), st.dates(), "datetime64[D]"),
    Kind(logical("long", "local-timestamp-millis"), st.datetimes(), "datetime64[us]"),
    Kind(logical("long", "local-timestamp-micros"), st.datetimes(), "datetime64[us]"),
    Kind(logical("long", "timestamp-millis"), st.datetimes().map(milliseconds), "datetime64[ms]"),
    Kind(logical("long", "timestamp-micros"), st.datetimes(), "datetime64[us]"),
]


def schema(types: Sequence[Any]) -> AvroSchema:
    fields = [{"name": f"f{number}", "type": type_} for number, type_ in enumerate(types)]
    return AvroSchema.from_text(json.dumps({"type": "record", "name": "R", "fields": fields}))


def column(values: Sequence[Any], dtype: str | None) -> Column:
    """The values in the way that suits their type: NaN, NaT, None or a mask for null."""
    if dtype is None:
        return values
    nulls = [value is None for value in values]
    filled = [0 if value is None else value for value in values]
    if dtype.startswith("datetime64"):
        return np.array(values, dtype)
    if dtype.startswith("float"):
        return np.array([np.nan if value is None else value for value in values], dtype)
    return np.ma.MaskedArray(np.array(filled, dtype), nulls) if any(nulls) else np.array(filled, dtype)


def by_fastavro(schema: AvroSchema, records: Sequence[Mapping[str, Any]]) -> list[bytes]:
    written = []
    for record in records:
        buffer = io.BytesIO(HEADER)
        buffer.seek(len(HEADER))
        fastavro.schemaless_writer(buffer, schema.parsed, record)
        written.append(buffer.getvalue())
    return written


def for_fastavro(type_: Any, value: Any) -> Any:
    """Columns of times have no zone: they are UTC, and fastavro has to be told."""
    is_utc = isinstance(value, datetime) and "local" not in json.dumps(type_)
    return value.replace(tzinfo=UTC) if is_utc else value


@st.composite
def batches(draw: st.DrawFn) -> tuple[AvroSchema, dict[str, Column], list[dict[str, Any]]]:
    """A schema, columns for it, and the same records for fastavro."""
    rows = draw(st.integers(0, 12))
    types: list[Any] = []
    columns: dict[str, Column] = {}
    records: list[dict[str, Any]] = [{} for _ in range(rows)]
    for number, kind in enumerate(draw(st.lists(st.sampled_from(KINDS), max_size=7))):
        union = draw(st.sampled_from([kind.avro, ["null", kind.avro], [kind.avro, "null"]]))
        values_of = kind.values | st.none() if isinstance(union, list) else kind.values
        values = draw(st.lists(values_of, min_size=rows, max_size=rows))
        types.append(union)
        columns[f"f{number}"] = column(values, kind.dtype)
        for record, value in zip(records, values, strict=True):
            record[f"f{number}"] = for_fastavro(union, value)
    return schema(types), columns, records


@given(batches())
def test_equals_fastavro(batch: tuple[AvroSchema, dict[str, Column], list[dict[str, Any]]]) -> None:
    parsed, columns, records = batch
    assert ColumnWriter(parsed, HEADER).encode(columns, len(records)) == by_fastavro(parsed, records)


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_all_null(kind: Kind, rows: int) -> None:
    writer = ColumnWriter(schema([["null", kind.avro], [kind.avro, "null"]]), HEADER)
    nothing = column([None] * rows, kind.dtype)
    assert writer.encode({"f0": nothing, "f1": nothing}, rows) == [HEADER + b"\x00\x02"] * rows


@given(st.lists(LONG))
@example([-(2**63), 2**63 - 1, 0, -1, 2**56 - 1, 2**55, 2**62])
def test_every_length_of_a_number(numbers: list[int]) -> None:
    parsed = schema(["long"])
    written = ColumnWriter(parsed, HEADER).encode({"f0": np.array(numbers, np.int64)}, len(numbers))
    assert written == by_fastavro(parsed, [{"f0": number} for number in numbers])


@given(st.lists(st.integers(-(2**31), 2**31 - 1) | st.none()), st.sampled_from(["int", "long"]))
def test_whole_numbers_as_floats(numbers: list[int | None], type_: str) -> None:
    parsed = schema([["null", type_]])
    floats = np.array([np.nan if number is None else number for number in numbers], np.float64)
    written = ColumnWriter(parsed, HEADER).encode({"f0": floats}, len(numbers))
    assert written == by_fastavro(parsed, [{"f0": number} for number in numbers])


@given(st.lists(st.floats(width=64)))
def test_nan_is_itself_where_null_is_not_allowed(numbers: list[float]) -> None:
    parsed = schema(["double"])
    written = ColumnWriter(parsed, HEADER).encode({"f0": np.array(numbers, np.float64)}, len(numbers))
    assert written == by_fastavro(parsed, [{"f0": number} for number in numbers])


@pytest.mark.parametrize("unit", ["D", "h", "s", "ms", "us", "ns"])
@pytest.mark.parametrize("type_", ["timestamp-millis", "timestamp-micros"])
def test_times_of_any_unit(unit: str, type_: str) -> None:
    times = np.array(["2023-02-01", "1969-12-31", "NaT", "2262-01-01"], f"datetime64[{unit}]")
    parsed = schema([["null", logical("long", type_)]])
    written = ColumnWriter(parsed, HEADER).encode({"f0": times}, 4)
    expected = [time.astype("datetime64[us]").item() for time in times]
    records = [{"f0": None if time is None else time.replace(tzinfo=UTC)} for time in expected]
    assert written == by_fastavro(parsed, records)


def test_other_columns_are_ignored_and_texts_may_be_arrays() -> None:
    writer = ColumnWriter(schema(["string"]), HEADER)
    expected = by_fastavro(schema(["string"]), [{"f0": "a"}, {"f0": "ü"}])
    for texts in (np.array(["a", "ü"]), np.array(["a", "ü"], object), ("a", "ü")):
        assert writer.encode({"f0": texts, "other": np.arange(7)}, 2) == expected


@pytest.mark.parametrize(
    ("type_", "values", "message"),
    [
        ("int", np.array([0, 2**31]), "f0, row 1: 2147483648 is no whole number from -2147483648 to 2147483647"),
        ("int", np.array([-(2**31) - 1]), "f0, row 0: -2147483649 is no whole number"),
        ("int", np.array([1.0, 1.5]), "f0, row 1: 1.5 is no whole number"),
        (["null", "int"], np.array([np.nan, np.inf]), "f0, row 1: inf is no whole number"),
        ("long", np.array([1, 2**63], np.uint64), "f0, row 1: 9223372036854775808 is no whole number"),
        ("long", np.array([2.0**63]), "f0, row 0: 9.22.* is no whole number"),
        ("int", np.array([0.0, np.nan]), "f0, row 1: there is no value"),
        ("double", np.ma.MaskedArray([1.0, 2.0], [False, True]), "f0, row 1: there is no value"),
        ("string", ["a", None], "f0, row 1: there is no value"),
        ("string", ["a", b"b"], "f0, row 1: b'b' cannot be written as str"),
        ("string", ["\ud800"], "f0, row 0: .* cannot be written as str: .* surrogates not allowed"),
        (["null", "bytes"], [None, 5], "f0, row 1: 5 cannot be written as bytes"),
        ("boolean", np.array([1, 2]), "f0, row 1: 2 is no whole number from 0 to 1"),
        ("float", np.array([np.inf, 1e300]), "f0, row 1: 1e\\+300 is too large for a float"),
        (logical("int", "date"), np.array(["NaT"], "datetime64[D]"), "f0, row 0: there is no value"),
        (logical("int", "date"), np.array([2**31], "datetime64[D]"), "f0, row 0: 2147483648 is no whole number"),
        (logical("long", "timestamp-micros"), np.array([0, 2**62], "datetime64[s]"), "f0, row 1: .* too far away"),
    ],
)
def test_a_value_that_the_type_cannot_hold_is_named(type_: Any, values: Column, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ColumnWriter(schema([type_]), HEADER).encode({"f0": values}, len(values))


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        ("int", ["1"]),
        ("int", np.array([True])),
        ("int", np.array([[1]])),
        ("double", np.array([None])),
        (logical("long", "timestamp-millis"), np.array([1])),
        ("long", np.array([1], "datetime64[s]")),
    ],
)
def test_a_column_of_another_kind_is_refused(type_: Any, values: Column) -> None:
    with pytest.raises(TypeError, match=r"f0, a column of .* cannot be written"):
        ColumnWriter(schema([type_]), HEADER).encode({"f0": values}, 1)


def test_columns_must_be_there_and_of_one_length() -> None:
    writer = ColumnWriter(schema(["int"]), HEADER)
    with pytest.raises(ValueError, match="no column for the field f0"):
        writer.encode({"f1": np.arange(2)}, 2)
    with pytest.raises(ValueError, match="f0: 2 values for 3 records"):
        writer.encode({"f0": np.arange(2)}, 3)


@pytest.mark.parametrize(
    "type_",
    [
        {"type": "array", "items": "int"},
        {"type": "enum", "name": "E", "symbols": ["A"]},
        {"type": "record", "name": "I", "fields": []},
        "null",
        ["int"],
        ["null", "int", "string"],
        ["int", "string"],
        ["null", {"type": "map", "values": "int"}],
        logical("string", "uuid"),
        logical("long", "time-micros"),
        logical("int", "timestamp-millis"),
        {"type": "bytes", "logicalType": "decimal", "precision": 4},
    ],
    ids=str,
)
def test_other_schemas_are_refused(type_: Any) -> None:
    with pytest.raises(TypeError, match="f1 cannot be written from a column"):
        ColumnWriter(schema(["int", type_]), HEADER)


@pytest.mark.parametrize("text", ['"int"', '{"type": "array", "items": "int"}'])
def test_only_records_are_supported(text: str) -> None:
    with pytest.raises(TypeError, match="only records"):
        ColumnWriter(AvroSchema.from_text(text), HEADER)


def test_a_record_without_fields_is_only_its_header() -> None:
    assert ColumnWriter(schema([]), HEADER).encode({}, 2) == [HEADER, HEADER]


def test_dates_cut_to_the_day() -> None:
    parsed = schema([logical("int", "date")])
    times = np.array(["2023-02-01T23:59", "1960-01-01T00:01"], "datetime64[m]")
    expected = by_fastavro(parsed, [{"f0": date(2023, 2, 1)}, {"f0": date(1960, 1, 1)}])
    assert ColumnWriter(parsed, HEADER).encode({"f0": times}, 2) == expected
