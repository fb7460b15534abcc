"""The city of synthetic trips: how often one goes from where to where, how far that is, and how long it takes.

`zones.csv` and the tables are fitted to TLC's green file of January 2023 by `python -m bench.city`, and are the same
for every seed of a sample: a model that is trained on one holds on another.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ZONES: Final = 265
"""TLC's zones; 264 stands for an unknown one and 265 for any outside the city."""
ZONES_FILE: Final = Path(__file__).with_name("zones.csv")
"""Zones that trips begin or end in: where they lie and how large they are, in miles; the share of pickups; how much
they attract trips; the factor of their traffic; whether New York's congestion surcharge is due there."""

QUANTILES: Final = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Of which tables of what varies from trip to trip have the values."""
BANDS: Final = (0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0)
"""Where one band of distances ends and the next begins, in miles."""
OFF_FROM: Final = (1.5, 5.0)
"""Miles between two zones from which trips are more like one another."""
LATE_FROM: Final = (1.0, 3.0)
"""Miles from which the durations of trips are."""
WAYS: Final = (0.1, 0.3, 0.6, 1.0, 1.5, 2.5, 4.0, 7.0, 12.0, 25.0)
"""Miles for which `_MINUTES` says how long they take."""

# By the day of the week, and by the hour of working days and of weekends.
_DAYS = (0.99, 1.12, 0.98, 1.02, 0.99, 1.06, 0.83)
_HOURS = (
    (11, 7, 5, 5, 3, 6, 17, 47, 56, 58, 56, 54, 54, 57, 65, 75, 77, 80, 80, 63, 46, 34, 26, 19),
    (33, 30, 24, 21, 16, 9, 7, 15, 21, 31, 45, 56, 61, 66, 64, 75, 74, 66, 67, 60, 53, 41, 33, 31),
)
# How often one goes so far: within a zone, then by `BANDS`.
_NEARNESS = (1, 0, 0.213, 0.929, 0.558, 0.78, 0.778, 0.446, 0.309, 0.202, 0.109, 0.054, 0.026, 0.0114, 0.0041, 0.0022)
# The logarithm of a trip's miles over those between its zones.
_OFF = (
    (-2.27, -1.79, -1.47, -1.12, -0.77, -0.53, -0.25, -0.01, 0.21, 0.43, 0.63, 1.10, 1.57, 1.91, 2.64),
    (-2.00, -1.08, -0.85, -0.67, -0.44, -0.32, -0.16, 0.00, 0.14, 0.28, 0.38, 0.53, 0.68, 0.93, 1.59),
    (-3.90, -1.67, -1.24, -0.83, -0.37, -0.23, -0.11, 0.00, 0.11, 0.22, 0.31, 0.44, 0.59, 0.72, 1.27),
)
# Minutes by `WAYS`, their factors by the hour of working days and of weekends, and the logarithm of what is left.
_MINUTES = (1.54, 2.44, 4.15, 6.42, 9.12, 14.21, 18.73, 23.89, 35.53, 53.29)
_PACE = (
    (
        *(0.79, 0.78, 0.80, 0.77, 0.81, 0.78, 0.84, 1.05, 1.15, 1.08, 1.05, 1.07),
        *(1.04, 1.06, 1.13, 1.18, 1.14, 1.12, 1.03, 0.93, 0.89, 0.85, 0.83, 0.80),
    ),
    (
        *(0.84, 0.82, 0.81, 0.79, 0.80, 0.79, 0.74, 0.75, 0.76, 0.80, 0.85, 0.88),
        *(0.92, 0.94, 0.98, 0.99, 1.00, 1.00, 0.99, 0.94, 0.90, 0.87, 0.86, 0.85),
    ),
)
_LATE = (
    (-1.05, -0.89, -0.81, -0.70, -0.53, -0.40, -0.20, 0.00, 0.20, 0.42, 0.57, 0.82, 1.05, 1.35, 2.32),
    (-0.93, -0.73, -0.64, -0.55, -0.41, -0.31, -0.15, 0.00, 0.15, 0.29, 0.39, 0.53, 0.65, 0.77, 1.14),
    (-0.98, -0.72, -0.63, -0.54, -0.43, -0.33, -0.17, 0.00, 0.17, 0.34, 0.45, 0.59, 0.69, 0.80, 0.98),
)


def drawn(rng: np.random.Generator, table: Sequence[float], count: int) -> Floats:
    """So many values of which the table has the `QUANTILES`."""
    return np.interp(rng.random(count), QUANTILES, table)


def _by_class(rng: np.random.Generator, classes: Ints, tables: Sequence[Sequence[float]]) -> Floats:
    return np.choose(classes, [drawn(rng, table, len(classes)) for table in tables])


def interpolated(values: Floats, at: Sequence[float], table: Sequence[float] | Floats) -> Floats:
    """The table's values between those that it has, all of them above 0, in logarithms."""
    return np.exp(np.interp(np.log(np.maximum(values, at[0])), np.log(at), np.log(table)))


class City:
    """The map; zones are given by TLC's ids, 1 to 265."""

    def __init__(self) -> None:
        known = pl.read_csv(ZONES_FILE)
        zones = pl.DataFrame({"zone": range(1, ZONES + 1)}).join(known, on="zone", how="left").fill_null(0)
        places, size = zones.select("x", "y").to_numpy(), zones["size"].to_numpy()
        self._pace = zones["pace"].to_numpy()
        self._surcharge = zones["surcharge"].to_numpy() > 0
        self._ways = np.sqrt(((places[:, None] - places) ** 2).sum(axis=2) + size[:, None] ** 2 + size**2)
        bands = 1 + np.digitize(self._ways, BANDS)
        np.fill_diagonal(bands, 0)
        chances = zones["attraction"].to_numpy() * np.array(_NEARNESS)[bands]
        chances *= (zones["pickups"].to_numpy() / chances.sum(axis=1))[:, None]
        self._trips = np.cumsum(chances / chances.sum())

    def zones(self, rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Where so many trips begin, and where they end."""
        pickup, dropoff = np.divmod(np.searchsorted(self._trips, rng.random(count) * self._trips[-1]), ZONES)
        return pickup + 1, dropoff + 1

    def miles(self, rng: np.random.Generator, pickup: Ints, dropoff: Ints) -> Floats:
        """The length of each trip by the streets."""
        way = self._ways[pickup - 1, dropoff - 1]
        miles: Floats = way * np.exp(_by_class(rng, np.digitize(way, OFF_FROM), _OFF))
        return miles

    def minutes(
        self, rng: np.random.Generator, pickup: Ints, dropoff: Ints, miles: Floats, *, hour: Ints, weekend: Bools
    ) -> Floats:
        """How long each trip takes."""
        late = _by_class(rng, np.digitize(miles, LATE_FROM), _LATE)
        pace = self._pace[pickup - 1] * self._pace[dropoff - 1] * np.array(_PACE)[weekend.astype(int), hour]
        minutes: Floats = interpolated(miles, WAYS, _MINUTES) * pace * np.exp(late)
        return minutes

    def surcharged(self, pickup: Ints, dropoff: Ints) -> Bools:
        """Whether New York's congestion surcharge is due."""
        due: Bools = self._surcharge[pickup - 1] | self._surcharge[dropoff - 1]
        return due


def hours(rng: np.random.Generator, count: int, weekdays: Ints) -> tuple[Ints, Ints]:
    """The day and the hour in which each of so many trips begins; `weekdays` are those of the days, 0 for Monday."""
    by_hour = np.array(_HOURS, dtype=np.float64)
    by_hour /= by_hour.sum(axis=1, keepdims=True)
    chances = np.array(_DAYS)[weekdays][:, None] * by_hour[(weekdays >= 5).astype(int)]
    day, hour = np.divmod(rng.choice(chances.size, count, p=chances.ravel() / chances.sum()), 24)
    return day, hour
