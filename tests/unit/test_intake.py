"""Records read many at once: the same events, columns and errors as one by one, whatever is between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Annotated, Any

import numpy as np
import pytest
from annotated_types import Ge, Gt, Le, Lt, MaxLen
from confluent_kafka import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime, Field, NaiveDatetime

from braidstream.avro import AvroSchema, Codec, EventType, LocalSchemas, write
from braidstream.columns import Columns
from braidstream.errors import PoisonRecord, RetriableError
from braidstream.events import FlatReader
from braidstream.pipelines import Topic
from braidstream.streaming.intake import FEW, Intake, Read
from rides.pipeline import RIDES
from schemas.event import Event
from tests.unit.events import EVENTS, ride

MANY = FEW + 1


class Measurement(Event):
    """Every type of field that columns hold."""

    sensor: str = Field(min_length=1, max_length=8)
    ok: bool
    checked: bool | None
    note: Annotated[str, MaxLen(5)] | None
    taken_at: Annotated[AwareDatetime, Ge(datetime(1990, 1, 1, tzinfo=UTC))]
    repaired_at: AwareDatetime | None
    seen_at: NaiveDatetime | None
    level: Annotated[float, Gt(-1)]
    share: float = Field(allow_inf_nan=True)
    count: Annotated[int, Ge(-5), Lt(2**40)]
    rank: Annotated[int, Le(100)] | None


MEASUREMENT = AvroSchema.from_text("""{
  "type": "record", "name": "Measurement", "fields": [
    {"name": "sensor", "type": "string"},
    {"name": "ok", "type": "boolean"},
    {"name": "checked", "type": ["null", "boolean"]},
    {"name": "note", "type": ["string", "null"]},
    {"name": "taken_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "repaired_at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
    {"name": "seen_at", "type": [{"type": "long", "logicalType": "local-timestamp-micros"}, "null"]},
    {"name": "level", "type": "float"},
    {"name": "share", "type": "double"},
    {"name": "count", "type": "long"},
    {"name": "rank", "type": ["null", "int"]}
  ]
}""")


def local(year: int, month: int = 1, day: int = 1) -> datetime:
    return datetime(year, month, day)  # noqa: DTZ001


def instants(earliest: datetime, latest: datetime) -> st.SearchStrategy[datetime]:
    return st.datetimes(earliest, latest, timezones=st.just(UTC))


MEASUREMENTS = st.builds(
    Measurement,
    sensor=st.text(min_size=1, max_size=8),
    ok=st.booleans(),
    checked=st.none() | st.booleans(),
    note=st.none() | st.text(max_size=5),
    taken_at=instants(local(1990), local(2500)),
    repaired_at=st.none() | instants(local(1000), local(3000)),
    seen_at=st.none() | st.datetimes(local(1000), local(3000)),
    level=st.floats(-1, exclude_min=True, width=32, allow_infinity=False),
    share=st.floats(),
    count=st.integers(-5, 2**40 - 1),
    rank=st.none() | st.integers(-(2**31), 100),
)


def newer(schema: AvroSchema) -> AvroSchema:
    """Another version: one more field, before the others, so that it is not mistaken for this one."""
    field = '"fields": [{"name": "vendor", "type": ["null", "string"], "default": null},'
    return AvroSchema.from_text(schema.text.replace('"fields": [', field, 1))


@dataclass(frozen=True)
class Case:
    """A topic, any events of it, and changes that make its events invalid."""

    topic: Topic[Any]
    events: st.SearchStrategy[Any]
    invalid: Sequence[Mapping[str, Any]]

    @property
    def schemas(self) -> LocalSchemas:
        return LocalSchemas(self.topic.event_type)

    def intake(self) -> Intake[Any]:
        return Intake(self.topic, self.schemas, self.topic.name)


def case(topic: Topic[Any], events: st.SearchStrategy[Any], invalid: Sequence[Mapping[str, Any]]) -> Case:
    schema = topic.event_type.latest
    return Case(
        Topic(topic.name, EventType(topic.event_type.model, (newer(schema), schema)), topic.key), events, invalid
    )


CASES = {
    "ride_started": case(
        RIDES.subjects,
        EVENTS["ride_started"],
        [
            *({"ride_id": text} for text in ("", "x" * 129, "é" * 129)),
            *({"pickup_at": time} for time in (local(1999, 12, 31), local(2100), local(1), local(9999, 12, 31))),
            *({"pickup_zone": zone} for zone in (0, 266, -1, 2**31 - 1, -(2**31))),
            *({"trip_distance": miles} for miles in (float("nan"), float("inf"), -float("inf"), -5e-324)),
            *({"passenger_count": count} for count in (-1, -(2**31))),
        ],
    ),
    "predictions": case(
        RIDES.predictions,
        EVENTS["predictions"],
        [
            *({"value": value} for value in (float("nan"), float("inf"), -float("inf"))),
            {"subject_id": ""},
            {"model": ""},
            *({name: "é" * 257} for name in ("prediction_id", "model", "model_version")),
            {"subject_id": "x" * 1025},
        ],
    ),
    "measurements": case(
        Topic("measurements", EventType(Measurement, (MEASUREMENT,)), "sensor"),
        MEASUREMENTS,
        [
            *({"sensor": text} for text in ("", "x" * 9, "é" * 9)),
            *({"note": text} for text in ("x" * 6, "\N{TAXI}" * 6)),
            {"taken_at": datetime(1990, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)},
            {"level": -1.0},
            {"level": float("nan")},
            *({"count": count} for count in (-6, 2**40, 2**55, -(2**55) - 1, 2**63 - 1, -(2**63))),
            {"rank": 101},
        ],
    ),
}

cases = pytest.mark.parametrize("name", CASES)


class Sender:
    """Makes records of a case: plain ones, and with something wrong with them."""

    def __init__(self, case: Case) -> None:
        self._topic = case.topic
        self._invalid = case.invalid
        self._schemas = case.schemas
        self._codec: Codec[Any] = Codec(case.topic.event_type, case.schemas, case.topic.name)

    def record(self, event: Any, offset: int = 0) -> Message:
        return self._message(self._topic.key_of(event).encode(), self._codec.encode(event), offset)

    def mutated(self, event: Any, random: Random, offset: int) -> Message:
        """The record of this event after something happened to it."""
        key, value = self._topic.key_of(event).encode(), self._codec.encode(event)
        return self._message(*random.choice(self._MUTATIONS)(self, event, key, value, random), offset)

    def batch(self, events: Sequence[Any], count: int, share: float, random: Random) -> list[Message]:
        """As many records of these events; about this share of them mutated."""
        return [
            self.mutated(random.choice(events), random, offset)
            if random.random() < share
            else self.record(random.choice(events), offset)
            for offset in range(count)
        ]

    def _message(self, key: bytes | None, value: bytes | None, offset: int) -> Message:
        return Message(topic=self._topic.name, partition=0, offset=offset, key=key, value=value)

    def _other_bytes(self, _: Any, key: bytes, value: bytes, random: Random) -> tuple[bytes, bytes]:
        """Bits flipped, cut, more bytes, or some replaced: huge lengths, negative ones, no UTF-8."""
        at = random.randrange(len(value) + 1)
        other = bytearray(value)
        other[at - 1] ^= 1 << random.randrange(8)
        splice = random.choice([b"\xff" * 9 + b"\x01", b"\xfe\xff\xff\xff\x0f", b"\x01", b"\xff\xff\x03", b"\x80\x00"])
        return key, random.choice(
            [
                bytes(other),
                value[:at],
                value + random.randbytes(random.randrange(1, 9)),
                value[:at] + splice + value[at + 1 :],
                value[:at] + splice + value[at:],
            ]
        )

    def _other_key(self, _: Any, key: bytes, value: bytes, random: Random) -> tuple[bytes | None, bytes]:
        return random.choice([None, b"", key + b"x", key[:-1], b"\xff", b"another"]), value

    def _other_text(self, _: Any, key: bytes, value: bytes, random: Random) -> tuple[bytes, bytes]:
        """Key and id changed in the same way, as often as not to something that is no UTF-8."""
        at = random.randrange(len(key))
        other = key[:at] + random.choice([b"\xff", b"\xc3", b"\x80", b"\xed", b"z"]) + key[at + 1 :]
        return other, value.replace(key, other, 1)

    def _other_value(self, _: Any, key: bytes, value: bytes, random: Random) -> tuple[bytes, bytes | None]:
        return key, random.choice([None, b"", b"\x00", value[:5], random.randbytes(random.randrange(60))])

    def _other_schema(self, event: Any, key: bytes, value: bytes, random: Random) -> tuple[bytes, bytes]:
        """Nobody's id, another magic byte, or another version, in truth or not."""
        version = self._topic.event_type.versions[0]
        truly = write(version.local_id, version, event.model_dump() | {"vendor": random.choice([None, "x"])})
        header = random.choice([b"\x01" + value[1:5], random.randbytes(5), truly[:5]])
        return key, random.choice([truly, header + value[5:]])

    def _out_of_bounds(self, event: Any, key: bytes, value: bytes, random: Random) -> tuple[bytes, bytes]:
        """Well-formed, and refused by the model."""
        other = event.model_copy(update=dict(random.choice(self._invalid)))
        return self._topic.key_of(other).encode(), self._codec.encode(other)

    _MUTATIONS: Sequence[Callable[..., tuple[bytes | None, bytes | None]]] = (
        _other_bytes,
        _other_bytes,
        _other_key,
        _other_text,
        _other_value,
        _other_schema,
        _out_of_bounds,
    )


def one_by_one(intake: Intake[Any], records: Sequence[Message]) -> tuple[dict[int, Any], dict[int, PoisonRecord]]:
    """The events and the errors of these records, by index."""
    events, errors = {}, {}
    for index, record in enumerate(records):
        try:
            events[index] = intake.read(record)
        except PoisonRecord as error:
            errors[index] = error
    return events, errors


def assert_same_columns(found: Columns, expected: Columns) -> None:
    assert (found.rows, list(found)) == (expected.rows, list(expected))
    for name, column in expected.items():
        assert (found[name].dtype, found[name].shape) == (column.dtype, column.shape), name
        assert [*map(type, found[name].tolist())] == [*map(type, column.tolist())], name
        np.testing.assert_array_equal(found[name], column, name)


def assert_read_as_one_by_one(topic: Topic[Any], intake: Intake[Any], records: Sequence[Message]) -> Read[Any]:
    found = intake.read_all(records)
    events, errors = one_by_one(intake, records)
    expected = list(events.values())
    assert list(found.indexes) == list(events)
    assert len(found.events) == len(found.events.keys) == len(expected)
    # In words: a NaN is not equal to itself, and 1 is equal to True.
    assert list(map(repr, found.events)) == list(map(repr, expected))
    assert found.events.keys == [topic.key_of(event) for event in expected]
    assert_same_columns(found.events.columns, Columns.of(topic.event_type.model, expected))
    assert {index: _said(error) for index, error in found.errors.items()} == {
        index: _said(error) for index, error in errors.items()
    }
    return found


def _said(error: Exception) -> tuple[type, str, object, type]:
    """What an error says, but for the addresses in it."""
    return type(error), re.sub(r"0x[0-9a-f]+", "0x", str(error)), getattr(error, "stage", None), type(error.__cause__)


@cases
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), count=st.integers(MANY, 100), share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_a_batch_is_read_as_its_records_are_one_by_one(
    name: str, data: st.DataObject, count: int, share: float, seed: int
) -> None:
    case = CASES[name]
    events = data.draw(st.lists(case.events, min_size=1, max_size=8))
    records = Sender(case).batch(events, count, share, Random(seed))
    assert_read_as_one_by_one(case.topic, case.intake(), records)


@cases
@given(data=st.data(), count=st.integers(0, FEW), share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_a_small_batch_is_read_as_its_records_are_one_by_one(
    name: str, data: st.DataObject, count: int, share: float, seed: int
) -> None:
    case = CASES[name]
    events = data.draw(st.lists(case.events, min_size=1, max_size=8))
    assert_read_as_one_by_one(case.topic, case.intake(), Sender(case).batch(events, count, share, Random(seed)))


def flat_reader(topic: Topic[Any]) -> FlatReader | None:
    return FlatReader.of(topic.event_type, topic.key)


@cases
@given(data=st.data())
def test_what_was_written_is_read_by_columns(name: str, data: st.DataObject) -> None:
    case = CASES[name]
    events = data.draw(st.lists(case.events, max_size=8))
    codec: Codec[Any] = Codec(case.topic.event_type, case.schemas, name)
    reader = flat_reader(case.topic)
    assert reader is not None
    columns, valid = reader.read([codec.encode(event) for event in events], codec.header)
    assert valid.tolist() == [True] * len(events)
    assert_same_columns(columns, Columns.of(case.topic.event_type.model, events))


RIDE = CASES["ride_started"]
RIDES_SENDER = Sender(RIDE)


def batch(**changed: tuple[bytes | None, bytes | None]) -> list[Message]:
    """Records of rides `0` to `39`, the one of `changed` being another."""
    records = [RIDES_SENDER.record(ride(str(number)), number) for number in range(40)]
    for name, (key, value) in changed.items():
        records[int(name.removeprefix("r"))] = Message(
            topic="ride_started", partition=0, offset=7, key=key, value=value
        )
    return records


def encoded(**changes: Any) -> bytes:
    return Codec(RIDE.topic.event_type, RIDE.schemas, "x").encode(ride("7").model_copy(update=changes))


GOOD = encoded()
HEADER, BODY = GOOD[:5], GOOD[5:]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"7", None, "the value is null"),
        (b"7", b"", "not in Confluent's wire format"),
        (b"7", b"\x01" + GOOD[1:], "not in Confluent's wire format"),
        (b"7", b"\x00\xff\xff\xff\xff" + BODY, "schema id 4294967295 is not known: no schema here has it"),
        (b"7", GOOD[:-1], "not readable as"),
        (b"7", GOOD + b"\x00", "1 bytes are left after the Avro record"),
        (b"7", HEADER + b"\xfe\xff\xff\xff\x0f" + BODY[1:], "not readable as"),
        (b"7", HEADER + b"\xff" * 9 + b"\x01" + BODY[1:], "not readable as"),
        (b"7", HEADER + b"\x01" + BODY[1:], "not readable as"),
        (b"\xff", HEADER + b"\x02\xff" + BODY[2:], "not readable as .*UnicodeDecodeError"),
        (b"7", HEADER + b"\x02\xff" + BODY[2:], "not readable as .*UnicodeDecodeError"),
        (None, GOOD, "the key None is not the ride_id '7'"),
        (b"8", GOOD, "the key b'8' is not the ride_id '7'"),
        (b"", encoded(ride_id=""), "ride_id = ''"),
        (b"x" * 129, encoded(ride_id="x" * 129), "at most 128 characters"),
        (b"7", encoded(trip_distance=float("nan")), "trip_distance = nan"),
        (b"7", encoded(pickup_zone=266), "pickup_zone = 266"),
        (b"7", encoded(pickup_at=local(1999, 12, 31)), "greater than or equal to 2000"),
        (b"7", encoded(pickup_at=local(2100)), "less than 2100"),
    ],
)
def test_a_record_that_is_wrong_is_explained_and_changes_nothing_about_its_neighbours(
    key: bytes | None, value: bytes | None, reason: str
) -> None:
    found = assert_read_as_one_by_one(RIDE.topic, RIDE.intake(), batch(r7=(key, value)))
    others = [*range(7), *range(8, 40)]
    assert list(found.indexes) == others
    assert found.events.keys == [str(number) for number in others]
    assert list(found.events) == [ride(str(number)) for number in others]
    [(index, error)] = found.errors.items()
    assert index == 7
    assert re.search(reason, str(error))


def test_another_version_of_the_schema_takes_its_place_among_the_others() -> None:
    version = RIDE.topic.event_type.versions[0]
    value = write(version.local_id, version, ride("7", trip_distance=1.0).model_dump() | {"vendor": "x"})
    found = assert_read_as_one_by_one(RIDE.topic, RIDE.intake(), batch(r7=(b"7", value)))
    assert found.events.keys == [str(number) for number in range(40)]
    assert found.events.columns["trip_distance"].tolist() == [2.5] * 7 + [1.0] + [2.5] * 32


def test_a_batch_of_which_nothing_can_be_read() -> None:
    wrong = {f"r{number}": (b"7", b"x") for number in range(40)}
    found = assert_read_as_one_by_one(RIDE.topic, RIDE.intake(), batch(**wrong))
    assert (len(found.events), len(found.errors)) == (0, 40)


class Unreachable(LocalSchemas):
    def schema(self, schema_id: int) -> AvroSchema | None:
        raise RetriableError("the registry does not answer")


def test_a_record_that_cannot_be_judged_now_is_no_poison() -> None:
    intake = Intake(RIDE.topic, Unreachable(RIDE.topic.event_type), "ride_started")
    assert len(intake.read_all(batch()).events) == 40
    with pytest.raises(RetriableError, match="the registry does not answer"):
        intake.read_all(batch(r7=(b"7", b"\x00\x00\x00\x00\x09" + BODY)))


@given(st.data())
def test_a_part_of_a_batch_is_that_part_of_its_events_and_columns(data: st.DataObject) -> None:
    """Also of a part, as halving takes it, and also where records were read one by one."""
    other = data.draw(st.sampled_from([(b"7", GOOD), (b"7", b"x"), (None, GOOD)]))
    found = RIDE.intake().read_all(batch(r7=other)).events
    events, keys = list(found), list(found.keys)
    for _ in range(3):
        part = slice(data.draw(st.integers(-50, 50) | st.none()), data.draw(st.integers(-50, 50) | st.none()))
        found, events, keys = found[part], events[part], keys[part]
        assert list(found) == events
        assert found.keys == keys
        assert_same_columns(found.columns, Columns.of(RIDE.topic.event_type.model, events))
    assert [found[-1 - row] for row in range(len(events))] == events[::-1]
    with pytest.raises(IndexError):
        found[len(events)]
