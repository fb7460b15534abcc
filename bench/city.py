"""`python -m bench.city FILE`: fit the city of synthetic trips to a month of green cabs.

Writes `producer/zones.csv`, and prints the tables of `producer/city.py` and `producer/sample.py` as they stand there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, diags, hstack
from scipy.sparse.csgraph import shortest_path
from scipy.sparse.linalg import lsqr

from producer.city import BANDS, LATE_FROM, OFF_FROM, QUANTILES, WAYS, ZONES_FILE, interpolated

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FARTHEST = 30.0
"""Miles between zones that no chain of trips connects, to begin with."""
_USUAL_SIZE = -1.5
"""Logarithm of the square of a zone's size that is assumed of a zone without trips within it."""


class Rides(NamedTuple):
    """Rides in a column each; zones are numbered from 0 by their place among those that occur."""

    ids: Ints
    pickup: Ints
    dropoff: Ints
    miles: Floats
    minutes: Floats
    hour: Ints
    weekday: Ints
    day: Ints
    surcharged: NDArray[np.bool_]

    def chosen(self, mask: NDArray[np.bool_]) -> Rides:
        """Those of the mask."""
        return self._replace(**{name: column[mask] for name, column in self._asdict().items() if name != "ids"})


def read(file: Path) -> Rides:
    """The rides of a month, refunds left out; a weekday of 0 is Monday."""
    start, end = pl.col("lpep_pickup_datetime"), pl.col("lpep_dropoff_datetime")
    zones = (pl.col(zone).is_between(1, 265) for zone in ("PULocationID", "DOLocationID"))
    frame = pl.read_parquet(file).filter(pl.col("total_amount") >= 0, *zones)
    columns = frame.select(
        "PULocationID",
        "DOLocationID",
        "trip_distance",
        minutes=(end - start).dt.total_seconds() / 60,
        hour=start.dt.hour().cast(pl.Int64),
        weekday=start.dt.weekday().cast(pl.Int64) - 1,
        day=start.dt.ordinal_day().cast(pl.Int64),
        surcharged=pl.col("congestion_surcharge").fill_null(0) > 0,
    )
    both = np.concatenate([columns["PULocationID"].to_numpy(), columns["DOLocationID"].to_numpy()])
    ids, places = np.unique(both, return_inverse=True)
    pickup, dropoff = np.split(places, 2)
    return Rides(ids, pickup, dropoff, *(columns[name].to_numpy() for name in columns.columns[2:]))


def fit_map(rides: Rides) -> tuple[Floats, Floats]:
    """Where the zones lie (x, y) and how large they are, in miles.

    The way between two is the root of the square of the straight line and of both sizes. It is fitted to the median of
    the trips between them, in logarithms; errors count in proportion to where they are large.
    """
    frame = pl.DataFrame({"pickup": rides.pickup, "dropoff": rides.dropoff, "miles": rides.miles})
    pairs = frame.group_by("pickup", "dropoff", maintain_order=True).agg(pl.col("miles").log().median(), pl.len())
    pickup, dropoff, length, count = (pairs[name].to_numpy() for name in pairs.columns)
    zones, weight = len(rides.ids), np.sqrt(count)

    def loss(flat: Floats) -> tuple[float, Floats]:
        places, sizes = flat[: 2 * zones].reshape(zones, 2), np.exp(flat[2 * zones :])
        apart = places[pickup] - places[dropoff]
        square = (apart**2).sum(axis=1) + sizes[pickup] + sizes[dropoff]
        error = 0.5 * np.log(square) - length
        slope = np.clip(error, -0.3, 0.3)
        slant = weight * slope / square
        gradient = np.zeros((zones, 3))
        for zone, sign in ((pickup, 1), (dropoff, -1)):
            np.add.at(gradient[:, :2], zone, sign * slant[:, None] * apart)
            np.add.at(gradient[:, 2], zone, 0.5 * slant * sizes[zone])
        unusual = flat[2 * zones :] - _USUAL_SIZE
        total = (weight * slope * (error - slope / 2)).sum() + 0.02 * (unusual**2).sum()
        return float(total), np.concatenate([gradient[:, :2].ravel(), gradient[:, 2] + 0.04 * unusual])

    begin = np.concatenate([_roughly(zones, pickup, dropoff, length).ravel(), np.full(zones, _USUAL_SIZE)])
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": 3000, "maxfun": 6000}).x
    places = found[: 2 * zones].reshape(zones, 2)
    return places - places.mean(axis=0), np.sqrt(np.exp(found[2 * zones :]))


def _roughly(zones: int, pickup: Ints, dropoff: Ints, length: Floats) -> Floats:
    """Places by classical scaling of the shortest ways along trips."""
    known = np.zeros((zones, zones))
    known[pickup, dropoff] = np.exp(length)
    np.fill_diagonal(known, 0)
    ways = np.minimum(shortest_path(known, directed=False), _FARTHEST)
    centred = np.eye(zones) - 1 / zones
    values, vectors = np.linalg.eigh(-0.5 * centred @ ways**2 @ centred)
    places: Floats = vectors[:, -2:] * np.sqrt(values[-2:])
    return places


def fit_trips(rides: Rides, ways: Floats) -> tuple[Floats, Floats]:
    """How much zones attract trips, and how much bands of ways do, the first of which is a zone itself.

    Scaled in turns until pickups, dropoffs and bands have as many trips as there were.
    """
    zones = len(ways)
    trips = np.zeros((zones, zones))
    np.add.at(trips, (rides.pickup, rides.dropoff), 1)
    bands = 1 + np.digitize(ways, BANDS)
    np.fill_diagonal(bands, 0)
    counted = np.bincount(bands.ravel(), trips.ravel(), len(BANDS) + 2)
    attraction, nearness = np.ones(zones), np.ones(len(counted))
    for _ in range(500):
        chances = attraction * nearness[bands]
        made = chances * (trips.sum(axis=1) / chances.sum(axis=1))[:, None]
        attraction *= trips.sum(axis=0) / np.maximum(made.sum(axis=0), 1e-9)
        nearness *= counted / np.maximum(np.bincount(bands.ravel(), made.ravel(), len(counted)), 1e-9)
    return attraction / attraction.max(), nearness / nearness.max()


class Pace(NamedTuple):
    """Minutes by `WAYS`, and the factors of the hours of working days and of weekends, and of zones."""

    ways: Floats
    hours: Floats
    zones: Floats

    def of(self, rides: Rides) -> Floats:
        """The usual minutes of these rides."""
        by_hour = self.hours[rides.hour + 24 * (rides.weekday >= 5)]
        zones = self.zones[rides.pickup] * self.zones[rides.dropoff]
        minutes: Floats = interpolated(rides.miles, WAYS, self.ways) * by_hour * zones
        return minutes


def fit_pace(rides: Rides) -> Pace:
    """Fitted in logarithms, to medians."""
    rows = np.arange(len(rides.miles))
    ways = np.stack([interpolated(rides.miles, WAYS, np.exp(own)) for own in np.eye(len(WAYS))], axis=1)
    hours = rides.hour + 24 * (rides.weekday >= 5)
    ends = np.concatenate([rides.pickup, rides.dropoff])
    parts = [csr_matrix(np.log(ways)), csr_matrix((np.ones(len(rows)), (rows, hours)), shape=(len(rows), 48))]
    parts.append(csr_matrix((np.ones(len(ends)), (np.tile(rows, 2), ends)), shape=(len(rows), len(rides.ids))))
    design, minutes, weight = hstack(parts).tocsr(), np.log(rides.minutes), np.ones(len(rows))
    for _ in range(8):
        found = lsqr(diags(weight) @ design, weight * minutes, damp=2.0)[0]
        weight = 1 / np.sqrt(np.maximum(np.abs(minutes - design @ found), 0.15))
    by_way, by_hour, by_zone = np.split(found, [len(WAYS), len(WAYS) + 48])
    hour, zone = by_hour[hours].mean(), by_zone[ends].mean()
    return Pace(np.exp(by_way + hour + 2 * zone), np.exp(by_hour - hour), np.exp(by_zone - zone))


def _table(name: str, values: Sequence[float] | Floats, digits: int) -> None:
    click.echo(f"{name} = ({', '.join(f'{value:.{digits}f}' for value in values)})")


def _quantiles(name: str, values: Floats) -> None:
    _table(name, np.quantile(values, QUANTILES), 2)


def _by_class(name: str, values: Floats, classes: Ints) -> None:
    for number in np.unique(classes):
        _quantiles(f"{name}[{number}]", values[classes == number])


def _print_times(rides: Rides) -> None:
    dates = [len(np.unique(rides.day[rides.weekday == day])) for day in range(7)]
    a_date = np.bincount(rides.weekday, minlength=7) / dates
    _table("_DAYS", a_date / a_date.mean(), 2)
    for name, days in (("working days", rides.weekday < 5), ("weekends", rides.weekday >= 5)):
        counts = np.bincount(rides.hour[days], minlength=24)
        _table(f"_HOURS of {name}", 1000 * counts / counts.sum(), 0)


def _print_tips(file: Path) -> None:
    """How the tips of cards are chosen: none, a share of what is to be paid, or an amount."""
    paid = pl.read_parquet(file).with_columns(due=pl.col("total_amount") - pl.col("tip_amount"))
    cards = paid.filter(
        pl.col("payment_type") == 1, pl.col("tip_amount") >= 0, pl.col("due") >= 10, pl.col("trip_distance") > 0
    )
    tip, due = cards["tip_amount"].to_numpy(), cards["due"].to_numpy()
    shares = np.array([0.1, 0.15, 0.2, 0.25, 0.3])
    # 20 % are often of a little less than the total.
    within = np.array([0.0015, 0.0015, 0.006, 0.0015, 0.0015])
    chosen = (np.abs(tip[:, None] / due[:, None] - shares) < within) & (tip > 0)[:, None]
    own = (tip > 0) & ~chosen.any(axis=1)
    _table("none, shares, amounts", [(tip == 0).mean(), *chosen.mean(axis=0), own.mean()], 3)
    click.echo(f"whole dollars among amounts: {(tip[own] % 1 == 0).mean():.2f}")
    _quantiles("_AMOUNTS by the root of the total", tip[own] / np.sqrt(due[own]))


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True))
def main(file: Path) -> None:
    """Fit the city to FILE, a parquet file of green cabs."""
    rides = read(file)
    moved = rides.chosen((rides.miles >= 0.1) & (rides.miles <= 60))
    places, sizes = fit_map(moved)
    ways = np.sqrt(((places[:, None] - places) ** 2).sum(axis=2) + sizes[:, None] ** 2 + sizes**2)
    attraction, nearness = fit_trips(rides, ways)
    timed = moved.chosen((moved.minutes >= 1) & (moved.minutes <= 60))
    pace = fit_pace(timed)
    known = np.bincount(rides.dropoff, minlength=len(rides.ids))
    surcharged = np.bincount(rides.dropoff, rides.surcharged, len(rides.ids)) > 0.6 * np.maximum(known, 1)
    pickups = np.bincount(rides.pickup, minlength=len(rides.ids)) / len(rides.pickup)
    columns = {
        "zone": rides.ids,
        "x": places[:, 0].round(2),
        "y": places[:, 1].round(2),
        "size": sizes.round(2),
        "pickups": pickups.round(5),
        "attraction": attraction.round(4),
        "pace": pace.zones.round(3),
        "surcharge": surcharged.astype(int),
    }
    pl.DataFrame(columns).write_csv(ZONES_FILE)
    _print_times(rides)
    _table("_NEARNESS", nearness, 4)
    apart = ways[moved.pickup, moved.dropoff]
    _by_class("_OFF", np.log(moved.miles / apart), np.digitize(apart, OFF_FROM))
    _table("_MINUTES", pace.ways, 2)
    _table("_PACE of working days", pace.hours[:24], 2)
    _table("_PACE of weekends", pace.hours[24:], 2)
    late = np.log(timed.minutes / pace.of(timed))
    _by_class("_LATE", late, np.digitize(timed.miles, LATE_FROM))
    _print_tips(file)


if __name__ == "__main__":
    main(prog_name="python -m bench.city")
