"""The wire format: every event comes back as it was, and bytes that are none never do harm."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braidstream.avro import AvroSchema, Codec, EventType, LocalSchemas, split
from braidstream.errors import PoisonRecord, RetriableError, SettingsError
from schemas.ride_started import RideStarted
from tests.unit.events import EVENT_TYPES, EVENTS, ride

topics = pytest.mark.parametrize("topic", EVENT_TYPES)


def codec(topic: str) -> Codec[Any]:
    return Codec(EVENT_TYPES[topic], LocalSchemas(EVENT_TYPES[topic]), topic)


def header(topic: str) -> bytes:
    return struct.pack(">BI", 0, EVENT_TYPES[topic].latest.local_id)


def zigzag(number: int) -> bytes:
    """A number as Avro writes a long."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema("long"), number)
    return buffer.getvalue()


@topics
@given(data=st.data())
def test_every_event_comes_back_as_it_was(topic: str, data: st.DataObject) -> None:
    event = data.draw(EVENTS[topic])
    assert codec(topic).decode(codec(topic).encode(event)) == event


def test_the_value_is_a_zero_byte_the_schema_id_and_the_avro_body() -> None:
    value = codec("ride_started").encode(ride("r"))
    assert value[:5] == header("ride_started")
    assert value[5:7] == b"\x02r"


mutations = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 200)),
    st.tuples(st.just("flip"), st.integers(0, 2000)),
    st.tuples(st.just("append"), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("insert"), st.tuples(st.integers(5, 200), st.binary(min_size=1, max_size=12))),
    st.tuples(st.just("body"), st.binary(max_size=60)),
    st.tuples(st.just("whole"), st.binary(max_size=60)),
)


def mutate(value: bytes, mutation: tuple[str, Any]) -> bytes:
    match mutation:
        case "cut", length:
            return value[:length]
        case "flip", bit:
            bit %= len(value) * 8
            return bytes(byte ^ (1 << bit % 8 if index == bit // 8 else 0) for index, byte in enumerate(value))
        case "append", more:
            return value + bytes(more)
        case "insert", (at, more):
            return value[:at] + bytes(more) + value[at:]
        case "body", body:
            return value[:5] + bytes(body)
        case "whole", whole:
            return bytes(whole)
    raise AssertionError(mutation)


@topics
@given(data=st.data(), mutation=mutations)
def test_a_damaged_value_is_poison_or_a_valid_event(topic: str, data: st.DataObject, mutation: tuple[str, Any]) -> None:
    value = mutate(codec(topic).encode(data.draw(EVENTS[topic])), mutation)
    try:
        event = codec(topic).decode(value)
    except PoisonRecord:
        return
    assert type(event).model_validate(event.model_dump()) == event


@topics
@pytest.mark.parametrize("length", [2**31, 2**62, -1, -(2**62)])
def test_a_length_that_cannot_be_is_poison(topic: str, length: int) -> None:
    # The first field of each is a string.
    with pytest.raises(PoisonRecord):
        codec(topic).decode(header(topic) + zigzag(length) + b"x" * 40)


@pytest.mark.parametrize("count", [2**31, 2**62, -(2**31), -(2**62)])
def test_a_count_of_items_that_cannot_be_is_poison(count: int) -> None:
    to_reasons = b"\x00\x00\x00"
    with pytest.raises(PoisonRecord):
        codec("decisions").decode(header("decisions") + to_reasons + zigzag(count) + b"\x00" * 40)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "the value is null"),
        (b"", "not in Confluent's wire format"),
        (b"\x00\x00\x00\x00", "not in Confluent's wire format"),
        (b'{"ride_id": "r"}', "not in Confluent's wire format"),
        (struct.pack(">BI", 0, 77) + b"body", "schema id 77 is not known: it is a registry's"),
    ],
)
def test_what_is_not_in_the_wire_format_is_poison(value: bytes | None, reason: str) -> None:
    with pytest.raises(PoisonRecord, match=reason):
        codec("ride_started").decode(value)


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_truncated_value_is_poison_of_the_value(cut: int) -> None:
    with pytest.raises(PoisonRecord, match="not readable as rides") as raised:
        codec("ride_started").decode(codec("ride_started").encode(ride())[:-cut])
    assert raised.value.stage == "VALUE_CONVERTER"


def test_trailing_bytes_are_poison() -> None:
    with pytest.raises(PoisonRecord, match="2 bytes are left after the Avro record"):
        codec("ride_started").decode(codec("ride_started").encode(ride()) + b"\x00\x00")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pickup_zone": 999}, "pickup_zone = 999: Input should be less than or equal to 265"),
        ({"trip_distance": -1.0}, "trip_distance = -1.0"),
        ({"trip_distance": float("nan")}, "trip_distance = nan"),
        ({"trip_distance": float("inf")}, "trip_distance = inf"),
        ({"passenger_count": -1}, "passenger_count = -1"),
        ({"ride_id": ""}, "ride_id = ''"),
        (
            {"pickup_at": ride().pickup_at.replace(year=9999)},
            r"pickup_at = datetime\.datetime\(9999, .*: Input should be less than 2100",
        ),
        (
            {"pickup_at": ride().pickup_at.replace(year=1999)},
            r"pickup_at = datetime\.datetime\(1999, .*: Input should be greater than or equal to 2000",
        ),
    ],
)
def test_what_the_model_refuses_is_poison_and_named(changes: dict[str, Any], reason: str) -> None:
    invalid = RideStarted.model_construct(**(ride().model_dump() | changes))
    with pytest.raises(PoisonRecord, match=reason):
        codec("ride_started").decode(codec("ride_started").encode(invalid))


def test_a_time_that_no_calendar_has_is_poison() -> None:
    with pytest.raises(PoisonRecord):
        codec("ride_started").decode(header("ride_started") + b"\x02r" + zigzag(2**62) + b"\x02\x02\x00\x00")


def test_an_older_version_is_read_as_the_latest() -> None:
    v1 = EVENT_TYPES["ride_started"].latest
    v2 = AvroSchema.from_text(
        v1.text.replace('"fields": [', '"fields": [{"name": "vendor", "type": ["null", "string"], "default": null},', 1)
    )

    class Newer(RideStarted):
        vendor: str | None = None

    newer = EventType(Newer, (v1, v2))
    schemas = LocalSchemas(newer)
    old = codec("ride_started").encode(ride("r"))
    assert Codec(newer, schemas, "ride_started").decode(old) == Newer(**ride("r").model_dump(), vendor=None)
    # and the newer by the older, which must know its schema
    event_type = EVENT_TYPES["ride_started"]
    new = Codec(newer, schemas, "ride_started").encode(Newer(**ride("r").model_dump(), vendor="x"))
    assert Codec(event_type, schemas, "ride_started").decode(new) == ride("r")


class AskedTwice:
    """A registry that does not answer the first time."""

    def __init__(self) -> None:
        self.asked = 0

    def id_of(self, event_type: EventType[Any], subject: str) -> int:
        assert subject == "rides-value"
        return 1

    def schema(self, schema_id: int) -> AvroSchema | None:
        self.asked += 1
        if self.asked == 1:
            raise RetriableError("the registry does not answer")
        return EVENT_TYPES["ride_started"].latest


def test_a_registry_that_does_not_answer_is_asked_again_and_its_answer_kept() -> None:
    source = AskedTwice()
    reader = Codec(EVENT_TYPES["ride_started"], source, "rides")
    value = struct.pack(">BI", 0, 7) + codec("ride_started").encode(ride())[5:]
    with pytest.raises(RetriableError):
        reader.decode(value)
    assert reader.decode(value) == reader.decode(value) == ride()
    assert source.asked == 2


def test_a_value_splits_into_schema_id_and_body() -> None:
    assert split(b"\x00\x00\x00\x01\x02body") == (258, b"body")


@pytest.mark.parametrize("text", ["", "{", '{"type": "record"}', '"strange"'])
def test_a_text_that_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="not an Avro schema"):
        AvroSchema.from_text(text)


NESTED = """{"type": "record", "name": "RideStarted", "namespace": "rides", "fields": [
  {"name": "ride_id", "type": "string"}, {"name": "before", "type": ["null", "RideStarted"], "default": null}
]}"""


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (NESTED, "rides.RideStarted is nested in itself"),
        ('{"type": "map", "values": [{"type": "array", "items": "null"}]}', "an array holds what takes no bytes"),
        (
            """{"type": "record", "name": "A", "fields": [
              {"name": "none", "type": {"type": "record", "name": "B", "fields": [{"name": "x", "type": "null"}]}},
              {"name": "many", "type": {"type": "array", "items": "B"}}
            ]}""",
            "an array holds what takes no bytes",
        ),
        ('{"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}', "an array holds what takes no bytes"),
        (
            """{"type": "record", "name": "A", "fields": [
              {"name": "one", "type": {"type": "record", "name": "B", "fields": [{"name": "x", "type": "int"}]}},
              {"name": "many", "type": {"type": "array", "items": "B"}},
              {"name": "maybe", "type": {"type": "array", "items": ["null", "B"]}},
              {"name": "kind", "type": {"type": "enum", "name": "E", "symbols": ["a"]}},
              {"name": "when", "type": {"type": "long", "logicalType": "timestamp-millis"}}
            ]}""",
            None,
        ),
    ],
    ids=["nested", "nothing", "a record of nothing", "a fixed of nothing", "safe"],
)
def test_a_schema_whose_records_may_have_no_end_is_known(schema: str, why: str | None) -> None:
    assert AvroSchema.from_text(schema).unsafe == why


def test_every_schema_here_is_safe() -> None:
    assert {version.unsafe for event_type in EVENT_TYPES.values() for version in event_type.versions} == {None}


def test_a_record_that_is_nested_without_end_is_poison_and_does_not_end_the_process() -> None:
    """Read with the registry's schema, a record of 200 kB overflowed the stack."""
    ride_type = EVENT_TYPES["ride_started"]
    nested = AvroSchema.from_text(NESTED)
    schemas = LocalSchemas(EventType(RideStarted, (nested, ride_type.latest)))
    value = struct.pack(">BI", 0, nested.local_id) + b"\x02a\x02" * 100_000
    read = Codec(ride_type, schemas, "ride_started")
    for _ in range(2):
        with pytest.raises(PoisonRecord, match=r"schema id \d+ is not safe to be read: rides.RideStarted is nested"):
            read.decode(value)


def test_an_event_type_that_is_nested_in_itself_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "ride_started.v1.avsc").write_text(NESTED)
    with pytest.raises(
        SettingsError, match=r"ride_started.v1.avsc is no schema to be read: rides.RideStarted is nested"
    ):
        EventType.load(RideStarted, "ride_started", tmp_path)


def test_a_record_of_another_schema_says_which_and_not_what_is_in_it() -> None:
    ride_type, order = (
        EVENT_TYPES["ride_started"],
        AvroSchema.from_text('{"type": "record", "name": "Order", "fields": []}'),
    )
    schemas = LocalSchemas(EventType(RideStarted, (order, ride_type.latest)))
    with pytest.raises(PoisonRecord) as caught:
        Codec(ride_type, schemas, "ride_started").decode(struct.pack(">BI", 0, order.local_id))
    assert str(caught.value) == "not readable as rides.RideStarted: it was written as Order"
