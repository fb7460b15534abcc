"""Predictions from a model's values, and their ids: as fastavro writes them, byte for byte."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from braidstream.avro import AvroSchema, Codec, EventType, LocalSchemas
from braidstream.errors import FatalError
from braidstream.events import Events
from braidstream.streaming.handler import Handler, Isolation, Output, Result
from braidstream.streaming.scoring import Predict, PredictionWriter, prediction_head, prediction_ids, predictions_of
from rides.pipeline import RIDES
from schemas.prediction import Prediction
from schemas.ride_started import RideStarted
from tests.unit.events import ride

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CODEC = Codec(RIDES.predictions.event_type, LocalSchemas(RIDES.predictions.event_type), "predictions")

texts = st.text(max_size=200)
names = st.text(min_size=1, max_size=200)
floats = st.floats(allow_nan=False, allow_infinity=False)
times = st.integers(-62_135_596_800_000, 253_402_300_799_999)
"""Milliseconds since 1970 that a datetime can hold."""


def prediction_id(subject: str, model: str, version: str) -> str:
    [found] = prediction_ids([subject.encode()], model, version)
    return bytes(found).decode()


def writer(model: str = "tip", version: str = "7") -> PredictionWriter:
    return PredictionWriter(CODEC.header, model, version)


def events_of(*names: str) -> Events[RideStarted]:
    return Events.of(RideStarted, [ride(name) for name in names], names)


def isolate(handle: Handler[RideStarted], events: Events[RideStarted]) -> list[Result]:
    return Isolation(handle, most=1000)(events)


def outputs_of(handle: Handler[RideStarted], events: Events[RideStarted]) -> list[Sequence[Output]]:
    """What a handler gives that has nothing against any of the events."""
    return [result for result in handle(events) if not isinstance(result, Exception)]


def test_the_id_of_a_prediction_never_changes() -> None:
    """Ids are in the topics: another way to make them would make repeats look new."""
    assert prediction_id("ride-1", "duration", "2") == "3030b77a-d9c3-8b8f-9b1a-40e3ba6fdd02"


@given(st.lists(texts, max_size=5), texts, texts)
def test_the_ids_are_uuids_of_version_8(subjects: list[str], model: str, version: str) -> None:
    ids = prediction_ids([subject.encode() for subject in subjects], model, version)
    assert [bytes(row).decode() for row in ids] == [prediction_id(subject, model, version) for subject in subjects]
    for row in ids:
        made = uuid.UUID(bytes(row).decode())
        assert str(made).encode() == bytes(row)
        assert (made.version, made.variant) == (8, uuid.RFC_4122)


def test_subject_model_and_version_each_make_another_id() -> None:
    ids = [
        prediction_id(*parts)
        for parts in (("a", "b", "c"), ("x", "b", "c"), ("a", "x", "c"), ("a", "b", "x"), ("ab", "", "c"))
    ]
    assert len(set(ids)) == len(ids)


@given(st.lists(st.tuples(names, floats), max_size=40), names, texts, times)
@example([("ride-1", 7.5), ("\N{TAXI}" * 100, -0.0), ("x" * 63, 5e-324), ("x" * 64, 1.7e308)], "é" * 70, "", -1)
def test_predictions_are_written_as_fastavro_writes_them(
    scored: list[tuple[str, float]], model: str, version: str, at: int
) -> None:
    subjects = [subject for subject, _ in scored]
    values = [value for _, value in scored]
    predicted_at = EPOCH + timedelta(milliseconds=at)
    written = writer(model, version).encode([subject.encode() for subject in subjects], values, at)
    assert written == [
        CODEC.encode(
            Prediction(
                prediction_id=prediction_id(subject, model, version),
                subject_id=subject,
                model=model,
                model_version=version,
                value=value,
                predicted_at=predicted_at,
            )
        )
        for subject, value in scored
    ]


def test_values_may_be_a_column_of_a_matrix_or_of_another_type() -> None:
    """As `predict_proba(...)[:, 1]` is."""
    matrix = np.arange(6.0).reshape(3, 2)
    subjects = [b"a", b"b", b"c"]
    expected = writer().encode(subjects, [1.0, 3.0, 5.0], 0)
    assert writer().encode(subjects, matrix[:, 1], 0) == expected
    assert writer().encode(subjects, matrix[:, 1].astype(np.float32), 0) == expected
    assert writer().encode(subjects, [1, 3, 5], 0) == expected


def test_each_event_gets_its_value() -> None:
    def predict(rides: Events[RideStarted]) -> list[float]:
        return [event.trip_distance or 0 for event in rides]

    handle = predictions_of(predict, "predictions", writer(), lambda: 1500)
    outputs = outputs_of(
        handle, Events.of(RideStarted, [ride("a", trip_distance=1.0), ride("b", trip_distance=2.0)], ["a", "b"])
    )
    assert [(topic, key) for [(topic, key, _)] in outputs] == [("predictions", b"a"), ("predictions", b"b")]
    assert [CODEC.decode(value) for [(_, _, value)] in outputs] == [
        Prediction(
            prediction_id=prediction_id(name, "tip", "7"),
            subject_id=name,
            model="tip",
            model_version="7",
            value=value,
            predicted_at=datetime.fromtimestamp(1.5, UTC),
        )
        for name, value in (("a", 1.0), ("b", 2.0))
    ]


def test_values_that_are_not_finite_cost_no_further_call() -> None:
    calls: list[int] = []

    def predict(rides: Events[RideStarted]) -> Sequence[float]:
        calls.append(len(rides))
        return [math.inf if name in "bd" else 1.0 for name in rides.keys]

    results = isolate(predictions_of(predict, "predictions", writer(), lambda: 0), events_of(*"abcd"))
    assert calls == [4]
    assert [str(result) for result in results if isinstance(result, Exception)] == [
        "model tip 7 predicts inf for b'b'",
        "model tip 7 predicts inf for b'd'",
    ]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf"), None, "fast"])
def test_a_value_that_is_no_finite_number_costs_only_its_record(wrong: float) -> None:
    def predict(rides: Events[RideStarted]) -> Sequence[float]:
        return [wrong if name == "b" else 1.0 for name in rides.keys]

    results = isolate(predictions_of(predict, "predictions", writer(), lambda: 0), events_of(*"abcd"))
    assert [isinstance(result, ValueError) for result in results] == [False, True, False, False]
    written = [result[0] for result in results if not isinstance(result, Exception)]
    assert [CODEC.decode(value).subject_id for _, _, value in written] == ["a", "c", "d"]


def test_a_value_that_is_not_finite_is_named() -> None:
    with pytest.raises(ValueError, match="model tip 7 predicts nan for b'b'"):
        writer().encode([b"a", b"b"], [1.0, float("nan")], 0)


@pytest.mark.parametrize(
    "predict",
    [lambda _: [1.0], lambda _: [1.0, 2.0, 3.0], lambda _: np.zeros((2, 1)), lambda _: 1.0],
    ids=["too few", "too many", "a matrix", "a number"],
)
def test_a_model_that_returns_another_number_of_values_is_not_trusted(predict: Predict[RideStarted]) -> None:
    handle = predictions_of(predict, "predictions", writer(), lambda: 0)
    with pytest.raises(FatalError, match=r"model tip 7 returned values of shape \(.*\) for 2 events"):
        isolate(handle, events_of("a", "b"))


def test_a_prediction_of_nobody_is_refused_and_costs_only_its_record() -> None:
    handle = predictions_of(lambda rides: [1.0] * len(rides), "predictions", writer(), lambda: 0)
    results = isolate(handle, Events.of(RideStarted, [ride("a"), ride("b"), ride("c")], ["a", "", "c"]))
    assert [str(result) for result in results if isinstance(result, Exception)] == [
        "a prediction needs a subject: its id is empty"
    ]
    assert isinstance(results[1], ValueError)


def test_features_that_write_to_their_columns_fail_rather_than_change_their_neighbours() -> None:
    def predict(rides: Events[RideStarted]) -> Sequence[float]:
        miles = rides.columns["trip_distance"]
        miles *= 2
        return [float(mile) for mile in miles]

    results = isolate(predictions_of(predict, "predictions", writer(), lambda: 0), events_of(*"abcd"))
    assert [str(result) for result in results] == ["output array is read-only"] * 4


def test_the_head_is_that_of_the_codec() -> None:
    assert prediction_head(CODEC) == CODEC.header


def test_another_schema_than_the_one_that_is_written_is_refused_at_the_start() -> None:
    schema = json.loads(RIDES.predictions.event_type.latest.text)
    schema["fields"].append({"name": "unit", "type": ["null", "string"], "default": None})
    event_type = EventType(Prediction, (AvroSchema.from_text(json.dumps(schema)),))
    with pytest.raises(FatalError, match="change both together"):
        prediction_head(Codec(event_type, LocalSchemas(event_type), "predictions"))


def test_a_model_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="a model needs a name"):
        writer(model="")
