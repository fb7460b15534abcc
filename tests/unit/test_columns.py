"""Events as columns: which types can be read so, and that their rules are pydantic's own."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from itertools import count
from typing import Annotated, Any, Literal
from uuid import UUID

import numpy as np
import pytest
from annotated_types import Ge, Gt, Lt, MultipleOf
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NaiveDatetime,
    RootModel,
    StringConstraints,
    ValidationError,
    create_model,
    model_validator,
)

from braidstream.avro import AvroSchema, EventType, LocalSchemas, write
from braidstream.columns import Columns, field_types
from braidstream.events import FlatReader
from braidstream.pipelines import Topic
from braidstream.streaming.intake import Intake
from rides.pipeline import RIDES
from schemas.event import Event
from tests.unit.test_intake import assert_read_as_one_by_one

_numbers = count()


def model_of(kind: Any, *, config: ConfigDict | None = None) -> type[BaseModel]:
    """A model of the fields `id` and `value`."""
    return create_model(f"Model{next(_numbers)}", __config__=config, id=(str, ...), value=(kind, ...))


def topic_of(model: type[BaseModel], kind: Any, *, value: str = "value", id_kind: Any = "string") -> Topic[Any]:
    fields = [{"name": "id", "type": id_kind}, {"name": value, "type": kind}]
    schema = AvroSchema.from_text(json.dumps({"type": "record", "name": "Record", "fields": fields}))
    return Topic("topic", EventType(model, (schema,)), "id")


def flat_reader(topic: Topic[Any]) -> FlatReader | None:
    return FlatReader.of(topic.event_type, topic.key)


@pytest.mark.parametrize("topic", [RIDES.subjects, RIDES.predictions], ids=["ride_started", "predictions"])
def test_rides_and_predictions_are_read_by_columns(topic: Topic[Any]) -> None:
    assert flat_reader(topic) is not None


def is_even(value: int) -> int:
    if value % 2:
        raise ValueError("odd")
    return value


class Whole(BaseModel):
    id: str
    value: int

    @model_validator(mode="after")
    def is_even(self) -> Whole:
        is_even(self.value)
        return self


class Before(BaseModel):
    id: str
    value: int

    @model_validator(mode="before")
    @classmethod
    def doubled(cls, data: dict[str, Any]) -> dict[str, Any]:
        return data | {"value": data["value"] * 2}


class Initialised(BaseModel):
    id: str
    value: int

    def __init__(self, **data: Any) -> None:
        super().__init__(**data | {"value": 5})


class Finished(BaseModel):
    id: str
    value: int

    def model_post_init(self, _: Any) -> None:
        self.value += 1


class Aliased(BaseModel):
    id: str
    value: int = Field(alias="amount")


class MoreThanWritten(BaseModel):
    id: str
    value: int
    extra: int = 3


class Colour(Enum):
    RED = "red"


class Inner(BaseModel):
    a: int


SECONDS = {"type": "long", "logicalType": "timestamp-millis"}
INNER = {"type": "record", "name": "Inner", "fields": [{"name": "a", "type": "int"}]}
COLOURS = {"type": "enum", "name": "Colour", "symbols": ["red", "blue"]}
UNIX = [datetime(2023, 1, 1, tzinfo=UTC), datetime(1960, 1, 1, tzinfo=UTC)]

NOT_FLAT: dict[str, tuple[Topic[Any], Sequence[Any]]] = {
    "a field's validator": (topic_of(model_of(Annotated[int, AfterValidator(is_even)]), "int"), [1, 2]),
    "a model's validator": (topic_of(Whole, "int"), [1, 2]),
    "a model's validator before": (topic_of(Before, "int"), [1, 2]),
    "its own __init__": (topic_of(Initialised, "int"), [1, 2]),
    "model_post_init": (topic_of(Finished, "int"), [1, 2]),
    "a strict model": (topic_of(model_of(float, config=ConfigDict(strict=True)), "double"), [1.0]),
    "a strict field": (topic_of(model_of(Annotated[int, Field(strict=True)]), "int"), [1]),
    "stripped by the model": (topic_of(model_of(str, config=ConfigDict(str_strip_whitespace=True)), "string"), [" a "]),
    "stripped": (topic_of(model_of(Annotated[str, StringConstraints(strip_whitespace=True)]), "string"), [" a "]),
    "a pattern": (topic_of(model_of(Annotated[str, Field(pattern="^a")]), "string"), ["ab", "ba"]),
    "multiple_of": (topic_of(model_of(Annotated[int, MultipleOf(3)]), "int"), [3, 4]),
    "a literal": (topic_of(model_of(Literal["a"]), "string"), ["a", "b"]),
    "an enumeration": (topic_of(model_of(Colour), COLOURS), ["red", "blue"]),
    "a record": (topic_of(model_of(Inner), INNER), [{"a": 1}]),
    "a list": (topic_of(model_of(list[int]), {"type": "array", "items": "int"}), [[1, 2], []]),
    "bytes": (topic_of(model_of(bytes), "bytes"), [b"a"]),
    "a UUID": (topic_of(model_of(UUID), {"type": "string", "logicalType": "uuid"}), [UUID(int=5)]),
    "one of two types": (topic_of(model_of(int | str), ["int", "string"]), [1, "a"]),
    "a union of one type": (topic_of(model_of(int), ["int"]), [1]),
    "a time with any zone or none": (topic_of(model_of(datetime), SECONDS), UNIX),
    "a time with the zone that the schema lacks": (
        topic_of(model_of(AwareDatetime), {"type": "long", "logicalType": "local-timestamp-millis"}),
        [datetime(2023, 1, 1)],  # noqa: DTZ001
    ),
    "a time as a number": (topic_of(model_of(AwareDatetime), "long"), [1_700_000_000]),
    "a time of day as a number": (topic_of(model_of(int), {"type": "int", "logicalType": "time-millis"}), []),
    "a number that is written as another type": (topic_of(model_of(int), "double"), [1.0, 1.5]),
    "text that is written as a number": (topic_of(model_of(str), "int"), [1]),
    "a flag that is written as a number": (topic_of(model_of(bool), "int"), [0, 1, 2]),
    "an alias": (topic_of(Aliased, "int", value="amount"), [1]),
    "a field that is not written": (topic_of(MoreThanWritten, "int"), [1]),
    "a key that may be null": (topic_of(model_of(int), "int", id_kind=["null", "string"]), [1]),
}
"""Types, and values of theirs."""


@pytest.mark.parametrize("name", NOT_FLAT)
def test_other_types_are_read_one_by_one(name: str) -> None:
    topic, values = NOT_FLAT[name]
    assert flat_reader(topic) is None
    schema = topic.event_type.latest
    field = schema.parsed["fields"][1]["name"]
    bodies = [write(schema.local_id, schema, {"id": "7", field: value}) for value in values] or [b"x"]
    records = [
        Message(topic="topic", partition=0, offset=offset, key=b"7", value=bodies[offset % len(bodies)])
        for offset in range(40)
    ]
    found = assert_read_as_one_by_one(topic, Intake(topic, LocalSchemas(topic.event_type), "topic"), records)
    assert len(found.events) + len(found.errors) == 40


def test_a_key_that_is_no_text_is_read_one_by_one() -> None:
    topic = topic_of(model_of(int), "int")
    assert FlatReader.of(topic.event_type, "value") is None


@pytest.mark.parametrize("validated", [Whole, Before, Initialised, Finished])
def test_a_model_that_is_validated_as_a_whole_has_the_columns_of_its_fields(validated: type[BaseModel]) -> None:
    event = validated.model_construct(id="a", value=3)
    columns = Columns.of(validated, [event])
    assert {name: str(column.dtype) for name, column in columns.items()} == {"id": "object", "value": "int64"}


def test_a_model_that_has_no_fields_of_its_own_has_columns_of_what_it_holds() -> None:
    root = RootModel[Inner]
    assert field_types(root) is None
    assert Columns.of(root, [root(Inner(a=1))])["root"].tolist() == [Inner(a=1)]


def test_a_whole_number_becomes_the_float_that_the_model_asks_for() -> None:
    """Also where it is no exact one."""
    for kind in (float, Annotated[float, Gt(2**53)], float | None):
        topic = topic_of(model_of(kind), "long")
        assert flat_reader(topic) is not None
        schema = topic.event_type.latest
        values = [0, -1, 2**53, 2**53 + 1, 2**53 + 3, -(2**53) - 1, 2**54 + 1, 2**62 + 1] * 5
        bodies = [write(schema.local_id, schema, {"id": "7", "value": value}) for value in values]
        records = [Message(topic="topic", partition=0, offset=0, key=b"7", value=body) for body in bodies]
        assert_read_as_one_by_one(topic, Intake(topic, LocalSchemas(topic.event_type), "topic"), records)


# What a field accepts

BOUNDS = ("ge", "gt", "le", "lt")


def agrees(kind: Any, values: Sequence[Any], column: np.ndarray[Any, Any], config: ConfigDict | None = None) -> None:
    """The column of these values is accepted where pydantic accepts the value."""
    model = model_of(kind, config=config)
    types = field_types(model)
    assert types is not None
    assert types["value"].understood
    assert types["value"].accepts(column).tolist() == [_is_valid(model, value) for value in values]


def _is_valid(model: type[BaseModel], value: Any) -> bool:
    try:
        model.model_validate({"id": "a", "value": value})
    except ValidationError:
        return False
    return True


@st.composite
def bounds(draw: st.DrawFn, limits: st.SearchStrategy[Any]) -> dict[str, Any]:
    return draw(st.dictionaries(st.sampled_from(BOUNDS), limits, max_size=3))


int64 = st.integers(-(2**63), 2**63 - 1)
near = st.integers(-3, 3)


@given(bounds(st.integers(-10, 10) | st.integers(-(2**63), 2**63) | int64), st.booleans(), st.lists(int64, max_size=5))
def test_integers_are_accepted_as_by_pydantic(limits: dict[str, Any], nullable: bool, others: list[int]) -> None:
    values = [limit + step for limit in limits.values() for step in range(-2, 3)] + others
    values = [value for value in values if -(2**63) <= value < 2**63]
    kind = Annotated[int, Field(**limits)]
    agrees(kind | None if nullable else kind, values, np.array(values, np.int64))


@given(
    bounds(st.floats(allow_nan=False) | st.integers(-(2**60), 2**60)),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, True, False]),
    st.lists(st.floats() | st.floats(width=32), max_size=5),
)
def test_floats_are_accepted_as_by_pydantic(
    limits: dict[str, Any], of_field: bool | None, of_model: bool | None, others: list[float]
) -> None:
    ends = [float(limit) for limit in limits.values()]
    values = [near for end in ends for near in (end, math.nextafter(end, math.inf), math.nextafter(end, -math.inf))]
    values += [*others, math.nan, math.inf, -math.inf, 0.0, -0.0]
    finite: dict[str, Any] = {} if of_field is None else {"allow_inf_nan": of_field}
    config = None if of_model is None else ConfigDict(allow_inf_nan=of_model)
    agrees(Annotated[float, Field(**limits, **finite)], values, np.array(values), config)


@given(bounds(st.floats(allow_nan=False) | int64), st.lists(int64, max_size=5))
def test_integers_for_a_float_are_accepted_as_by_pydantic(limits: dict[str, Any], others: list[int]) -> None:
    whole = [int(limit) for limit in limits.values() if math.isfinite(limit)]
    values = [end + step for end in whole for step in range(-2, 3)] + others
    values = [value for value in values if -(2**63) <= value < 2**63]
    agrees(Annotated[float, Field(**limits)], values, np.array(values, np.int64))


@given(st.integers(0, 8) | st.none(), st.integers(0, 8) | st.none(), st.lists(st.text(max_size=10)))
def test_lengths_of_text_are_accepted_as_by_pydantic(least: int | None, most: int | None, values: list[str]) -> None:
    kind = Annotated[str, Field(min_length=least, max_length=most)]
    agrees(kind, values, np.array(list(map(len, values)), np.int64))


ZONES = (UTC, timezone(timedelta(hours=-5)), timezone(timedelta(hours=14)))
MICROSECOND = timedelta(microseconds=1)


@given(st.booleans(), st.data())
def test_times_are_accepted_as_by_pydantic(is_aware: bool, data: st.DataObject) -> None:
    zones = st.sampled_from(ZONES) if is_aware else st.none()
    times = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones)  # noqa: DTZ001
    limits = data.draw(bounds(times))
    values = [limit + step * MICROSECOND for limit in limits.values() for step in range(-2, 3)]
    values += data.draw(st.lists(times, max_size=5))
    plain = AwareDatetime if is_aware else NaiveDatetime
    naive = [value.astimezone(UTC).replace(tzinfo=None) if is_aware else value for value in values]
    agrees(Annotated[plain, Field(**limits)], values, np.array(naive, "datetime64[us]"))


def test_no_bounds_accept_everything_of_the_type() -> None:
    agrees(bool, [True, False], np.array([True, False]))
    agrees(int, [2**63 - 1, -(2**63)], np.array([2**63 - 1, -(2**63)]))
    agrees(str | None, ["", "x" * 100_000], np.array([0, 100_000]))


# Columns


class Sample(Event):
    text: str
    flag: bool
    maybe_flag: bool | None
    whole: int
    maybe_whole: int | None
    real: Annotated[float, Ge(0)]
    at: AwareDatetime
    maybe_at: Annotated[NaiveDatetime, Lt(datetime(2100, 1, 1))] | None  # noqa: DTZ001
    many: list[int]


def test_the_columns_of_events() -> None:
    there = Sample(
        text="a",
        flag=True,
        maybe_flag=True,
        whole=5,
        maybe_whole=6,
        real=1.5,
        at=datetime(2023, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))),
        maybe_at=datetime(2023, 1, 1),  # noqa: DTZ001
        many=[1, 2],
    )
    missing = there.model_copy(update={"maybe_flag": None, "maybe_whole": None, "maybe_at": None, "many": []})
    columns = Columns.of(Sample, [there, missing])
    assert (columns.rows, list(columns)) == (2, list(Sample.model_fields))
    expected: dict[str, tuple[str, list[Any]]] = {
        "text": ("object", ["a", "a"]),
        "flag": ("bool", [True, True]),
        "maybe_flag": ("float64", [1.0, math.nan]),
        "whole": ("int64", [5, 5]),
        "maybe_whole": ("float64", [6.0, math.nan]),
        "real": ("float64", [1.5, 1.5]),
        "at": ("datetime64[us]", [datetime(2023, 1, 1, 10)] * 2),  # noqa: DTZ001
        "maybe_at": ("datetime64[us]", [datetime(2023, 1, 1), None]),  # noqa: DTZ001
    }
    for name, (dtype, values) in expected.items():
        assert columns[name].dtype == dtype, name
        np.testing.assert_array_equal(columns[name], np.array(values, dtype), name)
    assert columns["many"].tolist() == [[1, 2], []]


class Wrapped(Event):
    zone: RootModel[int]
    name: Annotated[int, AfterValidator(lambda number: f"n{number}")]


def test_what_a_validator_or_a_wrapper_makes_is_kept_as_it_is() -> None:
    columns = Columns.of(Wrapped, [Wrapped(zone=RootModel[int](5), name=7)])
    assert columns["zone"].tolist() == [RootModel[int](5)]
    assert columns["name"].tolist() == ["n7"]


def test_columns_are_not_to_be_written_to() -> None:
    columns = Columns.of(Sample, []).at(slice(0, 0))
    with pytest.raises(ValueError, match="read-only"):
        columns["whole"][:] = 1


def test_a_name_that_is_no_field_is_told_with_those_there_are() -> None:
    columns = Columns.of(Wrapped, [])
    with pytest.raises(KeyError) as unknown:
        columns["zones"]
    assert str(unknown.value) == "the events have no field 'zones'; they have zone, name (did you mean zone?)"
    assert columns.get("distance") is None
    assert "distance" not in columns


def test_no_events_have_columns_too() -> None:
    columns = Columns.of(Sample, [])
    assert [len(columns[name]) for name in columns] == [0] * 9
    assert columns["at"].dtype == "datetime64[us]"
