"""The features of a ride that the models choose from: only what is known when it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braidstream import Columns, FeatureSet, Matrix
from schemas.ride_started import RideStarted

MAX_MILES = 100.0
"""A distance above this is a mistake of the meter."""

_Array = NDArray[Any]
_HOUR = 3_600_000_000
"""In microseconds."""


def _trip_distance(rides: Columns) -> _Array:
    miles = rides["trip_distance"]
    return np.where((miles > 0) & (miles <= MAX_MILES), miles, np.nan)


def _passenger_count(rides: Columns) -> _Array:
    passengers = rides["passenger_count"]
    return np.where(passengers == 0, np.nan, passengers)


def _hours(rides: Columns) -> _Array:
    """Hours since Thursday, 1970-01-01, 0:00, of the city's time."""
    return np.asarray(rides["pickup_at"].astype(np.int64) // _HOUR)


_COLUMNS: Mapping[str, Callable[[Columns], _Array]] = MappingProxyType(
    {
        "pickup_zone": lambda rides: rides["pickup_zone"],
        "dropoff_zone": lambda rides: rides["dropoff_zone"],
        "same_zone": lambda rides: np.equal(rides["pickup_zone"], rides["dropoff_zone"]),
        "trip_distance": _trip_distance,
        "pickup_hour": lambda rides: _hours(rides) % 24,
        "pickup_weekday": lambda rides: (_hours(rides) // 24 + 3) % 7,
        "passenger_count": _passenger_count,
    }
)


def ride_features(*names: str) -> FeatureSet[RideStarted]:
    """The features with these names, in this order.

    `pickup_zone`, `dropoff_zone` (1 to 265), `same_zone` (0 or 1), `trip_distance` (miles; missing when it is 0 or
    above `MAX_MILES`), `pickup_hour` (0 to 23), `pickup_weekday` (0 is Monday), `passenger_count` (missing when it is
    0).
    """
    columns = [_COLUMNS[name] for name in names]

    def build(rides: Columns) -> Matrix:
        matrix = np.empty((rides.rows, len(names)), np.float32)
        for index, column in enumerate(columns):
            matrix[:, index] = column(rides)
        return matrix

    return FeatureSet(names, build)
