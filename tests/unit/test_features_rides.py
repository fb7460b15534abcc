"""The features of a ride, from its events."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from braidstream import Columns, FatalError, FeatureSet, Matrix
from braidstream.testing import ScorerKit
from consumers.duration.features import FEATURES as DURATION
from consumers.ride_features import ride_features
from consumers.tip.features import FEATURES as TIP
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted


def ride(**known: Any) -> RideStarted:
    defaults = {"ride_id": "1", "pickup_at": datetime(2023, 1, 4, 17, 59), "pickup_zone": 74, "dropoff_zone": 265}  # noqa: DTZ001
    return RideStarted.model_validate(defaults | known)


def test_duration_sees_zones_distance_and_time() -> None:
    matrix = DURATION.matrix([ride(trip_distance=2.5), ride(pickup_zone=265, pickup_at=datetime(2023, 1, 1))])  # noqa: DTZ001
    assert DURATION.names == (
        "pickup_zone",
        "dropoff_zone",
        "same_zone",
        "trip_distance",
        "pickup_hour",
        "pickup_weekday",
    )
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, [[74, 265, 0, 2.5, 17, 2], [265, 265, 1, np.nan, 0, 6]])


def test_tip_also_sees_the_passengers() -> None:
    assert TIP.names[-1] == "passenger_count"
    np.testing.assert_array_equal(
        TIP.matrix([ride(trip_distance=2.5, passenger_count=3)]), np.array([[74, 265, 2.5, 17, 2, 3]], np.float32)
    )


@pytest.mark.parametrize(
    ("miles", "seen"), [(None, np.nan), (0.0, np.nan), (0.01, 0.01), (100.0, 100.0), (100.01, np.nan), (1e300, np.nan)]
)
def test_a_distance_that_cannot_be_is_missing(miles: float | None, seen: float) -> None:
    matrix = ride_features("trip_distance").matrix([ride(trip_distance=miles)])
    np.testing.assert_array_equal(matrix, np.array([[seen]], np.float32))


@pytest.mark.parametrize(("passengers", "seen"), [(None, np.nan), (0, np.nan), (1, 1), (9, 9)])
def test_nobody_is_an_unknown_number_of_passengers(passengers: int | None, seen: float) -> None:
    matrix = ride_features("passenger_count").matrix([ride(passenger_count=passengers)])
    np.testing.assert_array_equal(matrix, [[seen]])


def test_no_rides_make_an_empty_matrix() -> None:
    assert DURATION.matrix([]).shape == (0, 6)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.bool_])
def test_numbers_become_single_precision(dtype: type[Any]) -> None:
    features: FeatureSet[RideStarted] = FeatureSet(("one",), lambda rides: np.ones((rides.rows, 1), dtype))
    matrix = features.matrix([ride()])
    assert matrix.dtype == np.float32
    assert matrix.tolist() == [[1]]


def wrong_columns(rides: Columns) -> Matrix:
    return np.ones((rides.rows, 2), np.float32)


def wrong_shape(rides: Columns) -> Matrix:
    return np.ones(rides.rows, np.float32)


def wrong_field(rides: Columns) -> Matrix:
    return rides["distance"][:, None]


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (wrong_columns, r"build gives 2 columns, and names has 1 \(trip_distance\)"),
        (wrong_shape, r"build gives a matrix of shape \(1,\) for 1 events, and .*: it has to be \(1, 1\)"),
        (wrong_field, r"the events have no field 'distance'; they have ride_id, .*\(did you mean trip_distance\?\)"),
    ],
)
def test_features_that_are_wrong_for_every_ride_stop_the_worker(build: Callable[[Columns], Matrix], why: str) -> None:
    features: FeatureSet[RideStarted] = FeatureSet(("trip_distance",), build)
    kit = ScorerKit(RIDES, predict=lambda rides: features.matrix(rides)[:, 0].tolist(), model="duration")
    with pytest.raises(FatalError, match=why):
        kit.send(ride())
    assert kit.dead_letters == []
