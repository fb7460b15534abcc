"""A made-up city for synthetic trips: where its zones lie, how popular they are and how fast its traffic is.

It is the same for every seed of a sample, so that a model trained on one sample holds on another.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ZONES: Final = 263
"""Zones with a place on the map; 264 and 265 stand for unknown and outside the city."""

# The green cabs' most frequent pickup zones and their shares in percent, January 2023.
_BUSIEST = {74: 19.4, 75: 13.4, 41: 5.9, 166: 5.7, 95: 5.6, 82: 4.3, 43: 4.2, 97: 3.2, 7: 2.9, 244: 2.6, 42: 2.6}
_MPH = (
    *(15.1, 15.9, 15.8, 15.6, 16.5, 19.6, 16.1, 12.3, 11.7, 12.4, 12.4, 12.5),
    *(12.6, 12.3, 11.4, 10.7, 10.8, 10.8, 11.6, 12.4, 13.5, 14.0, 14.6, 15.0),
)
_HOUR_SHARES = (17, 13, 10, 9, 7, 6, 15, 39, 47, 52, 53, 55, 56, 59, 65, 75, 76, 77, 77, 62, 47, 35, 28, 22)
_MILES_ACROSS = 12.0
_USUAL_MILES = 1.6
_DETOUR = 1.3


class City:
    """The map; zone ids are TLC's, 1 to 263."""

    def __init__(self) -> None:
        rng = np.random.default_rng(263)
        self._places = rng.uniform(0, _MILES_ACROSS, (ZONES, 2))
        popularity = 1 / (1 + rng.permutation(ZONES))
        for zone, share in _BUSIEST.items():
            popularity[zone - 1] = share / 5
        self._pickups = np.cumsum(popularity / popularity.sum())
        away = np.linalg.norm(self._places[:, None] - self._places, axis=2)
        attraction = np.sqrt(popularity) * np.exp(-away / _USUAL_MILES)
        self._dropoffs = np.cumsum(attraction / attraction.sum(axis=1, keepdims=True), axis=1)

    def pickup_zones(self, rng: np.random.Generator, count: int) -> Ints:
        """Where so many rides begin."""
        return 1 + np.minimum(np.searchsorted(self._pickups, rng.random(count)), ZONES - 1)

    def dropoff_zones(self, rng: np.random.Generator, pickup_zones: Ints) -> Ints:
        """Where rides end that begin in these zones: near by, and in popular zones, more often."""
        chance = rng.random(len(pickup_zones))
        zones = np.empty_like(pickup_zones)
        for zone in np.unique(pickup_zones):
            here = pickup_zones == zone
            zones[here] = np.searchsorted(self._dropoffs[zone - 1], chance[here])
        return 1 + np.minimum(zones, ZONES - 1)

    def miles(self, rng: np.random.Generator, pickup_zones: Ints, dropoff_zones: Ints) -> Floats:
        """The length of each ride by the streets."""
        away: Floats = np.linalg.norm(self._places[pickup_zones - 1] - self._places[dropoff_zones - 1], axis=1)
        miles: Floats = (0.5 + _DETOUR * away) * rng.lognormal(0, 0.15, len(away))
        return miles


def hours(rng: np.random.Generator, count: int) -> Ints:
    """The hour of the day in which each of so many rides begins."""
    return rng.choice(24, count, p=np.array(_HOUR_SHARES) / sum(_HOUR_SHARES))


def minutes(rng: np.random.Generator, miles: Floats, hour: Ints, weekend: Bools) -> Floats:
    """How long each ride takes: slower in the rush hours, faster at night, at weekends and on long ways."""
    mph = np.array(_MPH)[hour] * np.where(weekend, 1.12, 1.0) * np.minimum(0.85 + 0.06 * miles, 2.0)
    taken: Floats = (1.5 + 60 * miles / mph) * rng.lognormal(0, 0.22, len(miles))
    return taken
