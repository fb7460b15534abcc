"""Predictions from a model's values, and their ids."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braidstream.streaming.scoring import prediction_id, predictions_of
from rides.pipeline import RIDES
from schemas.prediction import Prediction
from tests.unit.events import ride


def test_the_id_of_a_prediction_never_changes() -> None:
    """Ids are in the topics: another way to make them would make repeats look new."""
    assert prediction_id("ride-1", "duration", "2") == "3030b77a-d9c3-8b8f-9b1a-40e3ba6fdd02"


@given(st.text(), st.text(), st.text())
def test_the_id_is_a_uuid_of_version_8(subject: str, model: str, version: str) -> None:
    made = uuid.UUID(prediction_id(subject, model, version))
    assert (made.version, made.variant) == (8, uuid.RFC_4122)


def test_subject_model_and_version_each_make_another_id() -> None:
    ids = [
        prediction_id(*parts)
        for parts in (("a", "b", "c"), ("x", "b", "c"), ("a", "x", "c"), ("a", "b", "x"), ("ab", "", "c"))
    ]
    assert len(set(ids)) == len(ids)


def test_each_event_gets_its_value() -> None:
    handle = predictions_of(
        RIDES, lambda rides: [event.trip_distance or 0 for event in rides], "tip", "7", lambda: 1500
    )
    outputs = handle([ride("a", trip_distance=1.0), ride("b", trip_distance=2.0)])
    assert outputs[1][0].topic is RIDES.predictions
    events = [output.event for [output] in outputs]
    assert events == [
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


def test_a_model_that_returns_too_few_values_is_not_trusted() -> None:
    handle = predictions_of(RIDES, lambda rides: [1.0], "tip", "7", lambda: 0)
    with pytest.raises(ValueError, match="shorter"):
        handle([ride("a"), ride("b")])
