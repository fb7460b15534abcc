"""The features of a ride that the models choose from: only what is known when it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from braidstream.models.features import FeatureSet, Matrix
from schemas.ride_started import RideStarted

MAX_MILES = 100.0
"""A distance above this is a mistake of the meter."""

_Column: TypeAlias = Sequence[int] | NDArray[np.float64]


def _trip_distance(rides: Sequence[RideStarted]) -> _Column:
    miles = np.array([ride.trip_distance for ride in rides], np.float64)  # None becomes NaN
    miles[(miles <= 0) | (miles > MAX_MILES)] = np.nan
    return miles


def _passenger_count(rides: Sequence[RideStarted]) -> _Column:
    passengers = np.array([ride.passenger_count for ride in rides], np.float64)
    passengers[passengers == 0] = np.nan
    return passengers


# A pass of plain Python for each column is as fast as this gets.
_COLUMNS: Mapping[str, Callable[[Sequence[RideStarted]], _Column]] = MappingProxyType(
    {
        "pickup_zone": lambda rides: [ride.pickup_zone for ride in rides],
        "dropoff_zone": lambda rides: [ride.dropoff_zone for ride in rides],
        "same_zone": lambda rides: [ride.pickup_zone == ride.dropoff_zone for ride in rides],
        "trip_distance": _trip_distance,
        "pickup_hour": lambda rides: [ride.pickup_at.hour for ride in rides],
        "pickup_weekday": lambda rides: [ride.pickup_at.weekday() for ride in rides],
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

    def build(rides: Sequence[RideStarted]) -> Matrix:
        matrix = np.empty((len(rides), len(names)), np.float32)
        for index, column in enumerate(columns):
            matrix[:, index] = column(rides)
        return matrix

    return FeatureSet(names, build)
