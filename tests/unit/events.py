"""Events to test with: examples, and hypothesis strategies for whatever their models accept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel

from braidstream.avro import EventType
from braidstream.pipelines import changelog
from rides.pipeline import RIDES
from schemas import decision, decision_state
from schemas.handled import Handled
from schemas.prediction import Prediction
from schemas.ride_started import RideStarted

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

EVENT_TYPES: dict[str, EventType[Any]] = {
    topic.name: topic.event_type for topic in (*RIDES.topics, changelog("handled"))
}
"""Every event type, by the name of a topic of it."""


def ride(ride_id: str = "ride-1", **changes: Any) -> RideStarted:
    """A plain ride."""
    fields = {
        "pickup_at": datetime(2023, 2, 1, 8, 30),  # noqa: DTZ001 - the city's local time
        "pickup_zone": 74,
        "dropoff_zone": 75,
        "trip_distance": 2.5,
        "passenger_count": 1,
    }
    return RideStarted(ride_id=ride_id, **(fields | changes))


def prediction(subject_id: str = "ride-1", model: str = "duration", value: float = 7.5) -> Prediction:
    """A plain prediction."""
    return Prediction(
        prediction_id="0",
        subject_id=subject_id,
        model=model,
        model_version="1",
        value=value,
        predicted_at=NOON,
    )


def _in_milliseconds(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


_int32 = st.integers(-(2**31), 2**31 - 1)
_counts = st.integers(0, 2**31 - 1)
_floats = st.floats(allow_nan=False, allow_infinity=False)
_instants = st.datetimes(
    datetime(1970, 1, 1) - timedelta(days=365_000),  # noqa: DTZ001 - hypothesis adds the zone
    datetime(9999, 12, 31),  # noqa: DTZ001
    timezones=st.just(UTC),
).map(_in_milliseconds)
_local_times = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001
    datetime(2099, 12, 31, 23, 59),  # noqa: DTZ001
).map(_in_milliseconds)
_names = st.text(min_size=1, max_size=40)

_evidence = st.builds(decision.Evidence, model=_names, model_version=st.text(), value=_floats)

EVENTS: dict[str, st.SearchStrategy[BaseModel]] = {
    "ride_started": st.builds(
        RideStarted,
        ride_id=st.text(min_size=1, max_size=128),
        pickup_at=_local_times,
        pickup_zone=st.integers(1, 265),
        dropoff_zone=st.integers(1, 265),
        trip_distance=st.none() | st.floats(0, allow_infinity=False),
        passenger_count=st.none() | _counts,
    ),
    "predictions": st.builds(
        Prediction,
        prediction_id=st.text(max_size=256),
        subject_id=_names,
        model=_names,
        model_version=st.text(max_size=256),
        value=_floats,
        predicted_at=_instants,
    ),
    "decisions": st.builds(
        decision.Decision,
        subject_id=st.text(),
        revision=_counts,
        action=st.text(),
        reasons=st.lists(st.text()),
        complete=st.booleans(),
        missing=st.lists(st.text()),
        evidence=st.lists(_evidence),
        opened_at=_instants,
        decided_at=_instants,
    ),
    "decision_state": st.builds(
        decision_state.DecisionState,
        subject_id=st.text(),
        event=st.none() | st.binary(),
        expected=st.lists(st.text()),
        evidence=st.lists(_evidence),
        first_seen_at=_instants,
        expires_at=_instants,
        outcome=st.none()
        | st.builds(decision_state.Outcome, revision=_counts, action=st.text(), complete=st.booleans()),
    ),
    "handled": st.builds(Handled, subject_id=st.text(), expires_at=_instants),
}
"""For each topic, any event that its model accepts."""
