"""Flat records read as columns: what fastavro reads one by one, or nothing."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Mapping
from random import Random
from typing import Any

import fastavro
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from braidstream.avro import AvroSchema
from braidstream.column_reader import ColumnReader, RawBatch

HEADER = b"\x00\x00\x00\x00\x07"
LONGEST = 2**55
"""From here on a long takes more than the eight bytes that are read at once."""

VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**31), 2**31 - 1) | st.sampled_from([-(2**31), -1, 0, 63, 64, 2**31 - 1]),
    "long": st.integers(-(2**63), 2**63 - 1)
    | st.integers(LONGEST - 2, LONGEST + 1)
    | st.integers(-LONGEST - 2, -LONGEST + 1)
    | st.integers(0, 62).map(lambda bits: 1 << bits)
    | st.integers(0, 63).map(lambda bits: -1 << bits),
    "float": st.floats(width=32),
    "double": st.floats(),
    "boolean": st.booleans(),
    "string": st.text(max_size=100) | st.text("a", min_size=60, max_size=70),
}
FORMS = ("{}", '["null", {}]', '[{}, "null"]', '{"type": {}}', '["null", {"type": {}}]')
"""How a field's type may be written around the type of its values."""

Row = dict[str, Any]


def schema_of(*types: str) -> AvroSchema:
    """A record of fields `0`, `1`, … of these types, which are JSON."""
    fields = ", ".join(f'{{"name": "f{number}", "type": {kind}}}' for number, kind in enumerate(types))
    return AvroSchema.from_text(f'{{"type": "record", "name": "Row", "fields": [{fields}]}}')


@st.composite
def tables(draw: st.DrawFn) -> tuple[AvroSchema, list[Row]]:
    """A flat schema and rows of it: for each field a few values, in any order."""
    kinds = draw(st.lists(st.sampled_from([*VALUES]), min_size=1, max_size=6))
    forms = [draw(st.sampled_from(FORMS)) for _ in kinds]
    pools = [
        draw(st.lists(VALUES[kind] | st.none() if "null" in form else VALUES[kind], min_size=1, max_size=6))
        for kind, form in zip(kinds, forms, strict=True)
    ]
    count = draw(st.integers(0, 200))
    random = Random(draw(st.integers(0, 2**32)))
    rows = [{f"f{number}": random.choice(pool) for number, pool in enumerate(pools)} for _ in range(count)]
    return schema_of(*(form.replace("{}", f'"{kind}"') for kind, form in zip(kinds, forms, strict=True))), rows


def reader_of(schema: AvroSchema) -> ColumnReader:
    reader = ColumnReader.of(schema)
    assert reader is not None
    return reader


def write(schema: AvroSchema, row: Row) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema.parsed, row)
    return buffer.getvalue()


def rows_of(schema: AvroSchema, batch: RawBatch) -> list[Row | None]:
    """The rows of a batch as fastavro gives them; None for those that are not readable."""
    columns = []
    for field in schema.parsed["fields"]:
        values, nulls = batch.columns[field["name"]]
        found = [batch.buffer[slice(*value)] if values.ndim == 2 else value for value in values.tolist()]
        columns.append([None if nulls is not None and nulls[row] else value for row, value in enumerate(found)])
    names = [field["name"] for field in schema.parsed["fields"]]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return [row if readable else None for row, readable in zip(rows, batch.readable.tolist(), strict=True)]


def bits(row: Row | None) -> dict[str, object] | None:
    """A row that can be compared: also NaN, -0.0, and True beside 1."""
    if row is None:
        return None
    return {name: _bits(value) for name, value in row.items()}


def _bits(value: object) -> object:
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else struct.pack("<d", value)
    return (bytes, value.encode()) if isinstance(value, str) else (type(value), value)


def is_short(row: Row) -> bool:
    """Whether no integer of it takes more than eight bytes."""
    return all(-LONGEST <= value < LONGEST for value in row.values() if type(value) is int)


@given(tables())
@example((schema_of('"long"'), []))
@example((schema_of('["null", "string"]', '"string"'), [{"f0": None, "f1": ""}, {"f0": "", "f1": "\N{TAXI}"}]))
def test_what_fastavro_wrote_is_read_as_fastavro_reads_it(table: tuple[AvroSchema, list[Row]]) -> None:
    schema, rows = table
    batch = reader_of(schema).read([HEADER + write(schema, row) for row in rows], HEADER)
    assert list(map(bits, rows_of(schema, batch))) == [bits(row) if is_short(row) else None for row in rows]


def broken(body: bytes, random: Random) -> bytes:
    """This body with something wrong with it, most of the time."""
    at = random.randrange(len(body) + 1)
    kind = random.randrange(5)
    if kind == 0:
        return body[:at]
    if kind == 1:
        return body + random.randbytes(random.randrange(1, 12))
    if kind == 2:
        return (
            body[:at] + random.choice([b"\xff" * 9 + b"\x01", b"\x01", b"\xff\xff\x7f", b"\x80\x00"]) + body[at + 1 :]
        )
    if kind == 3:
        return random.randbytes(random.randrange(40))
    flipped = bytearray(body or b"\x00")
    flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
    return bytes(flipped)


def fastavro_reads(schema: AvroSchema, body: bytes) -> Row | None:
    """One whole record, or None; text that is not UTF-8 is left as it is, as the columns do."""
    buffer = io.BytesIO(body)
    try:
        row = fastavro.schemaless_reader(buffer, schema.parsed, None, handle_unicode_errors="surrogateescape")
    except Exception:
        return None
    assert isinstance(row, dict)
    return row if buffer.tell() == len(body) else None


def _with_bytes(row: Row | None) -> Row | None:
    if row is None:
        return None
    return {
        name: value.encode(errors="surrogateescape") if isinstance(value, str) else value for name, value in row.items()
    }


@given(tables(), st.integers(0, 2**32), st.floats(0, 1))
def test_a_broken_record_is_read_as_fastavro_reads_it_or_not_at_all_and_its_neighbours_as_ever(
    table: tuple[AvroSchema, list[Row]], seed: int, share: float
) -> None:
    schema, rows = table
    random = Random(seed)
    bodies = [write(schema, row) for row in rows]
    whole = [random.random() >= share for _ in rows]
    bodies = [body if good else broken(body, random) for body, good in zip(bodies, whole, strict=True)]
    found = rows_of(schema, reader_of(schema).read([HEADER + body for body in bodies], HEADER))
    for row, read, body, good in zip(rows, found, bodies, whole, strict=True):
        if good and is_short(row):
            assert bits(read) == bits(row)
        elif read is not None:
            assert bits(read) == bits(_with_bytes(fastavro_reads(schema, body)))


def test_only_values_that_begin_with_the_header_are_read() -> None:
    schema = schema_of('"int"')
    values = [HEADER + b"\x02", b"\x00\x00\x00\x00\x08\x02", b"\x01" + HEADER[1:] + b"\x02", HEADER, HEADER[:3], b""]
    values += [HEADER + b"\x02", b"\x02"]
    assert reader_of(schema).read(values, HEADER).readable.tolist() == [True, *[False] * 5, True, False]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ('"boolean"', b"\x02"),
        ('"string"', b"\x01"),
        ('"string"', b"\x04a"),
        ('"string"', b"\xfe\xff\xff\xff\xff\xff\xff\x7f"),
        ('["null", "int"]', b"\x04\x02"),
        ('["null", "int"]', b"\x01\x02"),
        ('["null", "int"]', b"\x00\x02"),
        ('"long"', b"\xff" * 9 + b"\x01"),
        ('"long"', b"\x80"),
        ('"double"', b"\x00" * 7),
        ('"float"', b"\x00" * 5),
    ],
    ids=repr,
)
def test_what_is_not_plainly_a_record_is_not_read(kind: str, body: bytes) -> None:
    """Nor by looking at the neighbour behind it."""
    schema = schema_of(kind)
    good = HEADER + write(schema, {"f0": {"boolean": True, "string": "x"}.get(kind.strip('"'), 1)})
    assert reader_of(schema).read([good, HEADER + body, good], HEADER).readable.tolist() == [True, False, True]


def test_a_time_is_read_in_the_unit_of_its_schema() -> None:
    schema = schema_of('{"type": "long", "logicalType": "timestamp-micros"}')
    [column] = reader_of(schema).read([HEADER + b"\x0a"], HEADER).columns.values()
    assert column.values.tolist() == [5]


@pytest.mark.parametrize(
    "schema",
    [
        schema_of('"bytes"'),
        schema_of('"null"'),
        schema_of('["int"]'),
        schema_of('["null"]'),
        schema_of('["null", "int", "string"]'),
        schema_of('["int", "string"]'),
        schema_of('{"type": "array", "items": "int"}'),
        schema_of('{"type": "map", "values": "int"}'),
        schema_of('{"type": "enum", "name": "E", "symbols": ["A"]}'),
        schema_of('{"type": "fixed", "name": "F", "size": 4}'),
        schema_of('"int"', '{"type": "record", "name": "Inner", "fields": [{"name": "a", "type": "int"}]}'),
        schema_of('["null", "Row"]'),
        schema_of(),
        AvroSchema.from_text('"string"'),
        AvroSchema.from_text('["null", "string"]'),
    ],
    ids=lambda schema: json.dumps(json.loads(schema.text))[:80],
)
def test_other_schemas_are_not_flat(schema: AvroSchema) -> None:
    assert ColumnReader.of(schema) is None


def test_no_values_make_empty_columns() -> None:
    batch = reader_of(schema_of('"string"', '["null", "double"]')).read([], HEADER)
    assert [len(column.values) for column in batch.columns.values()] == [0, 0]
    assert batch.readable.tolist() == []
