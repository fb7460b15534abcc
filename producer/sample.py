"""Synthetic trips in TLC's schema for green cabs, flaws included, for those who have no data at hand."""

from __future__ import annotations

import calendar
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from braidstream import SettingsError
from producer.city import Bools, City, Floats, Ints, hours, minutes
from producer.trips import named_month

SCHEMA: Final = pl.Schema(
    {
        "VendorID": pl.Int32(),
        "lpep_pickup_datetime": pl.Datetime("us"),
        "lpep_dropoff_datetime": pl.Datetime("us"),
        "store_and_fwd_flag": pl.String(),
        "RatecodeID": pl.Int64(),
        "PULocationID": pl.Int32(),
        "DOLocationID": pl.Int32(),
        "passenger_count": pl.Int64(),
        "trip_distance": pl.Float64(),
        "fare_amount": pl.Float64(),
        "extra": pl.Float64(),
        "mta_tax": pl.Float64(),
        "tip_amount": pl.Float64(),
        "tolls_amount": pl.Float64(),
        "ehail_fee": pl.Float64(),
        "improvement_surcharge": pl.Float64(),
        "total_amount": pl.Float64(),
        "payment_type": pl.Int64(),
        "trip_type": pl.Int64(),
        "congestion_surcharge": pl.Float64(),
    }
)
"""TLC's columns and types, as in the green file of February 2023."""

CARD, CASH, NO_CHARGE, DISPUTE = 1, 2, 3, 4
"""TLC's codes of `payment_type`."""

_BY_DRIVER = ["store_and_fwd_flag", "RatecodeID", "passenger_count", "payment_type", "trip_type"]
_CHARGES = ["fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount", "improvement_surcharge"]
_NOT_ENTERED_SHARE = 0.063
_NO_DISTANCE_SHARE = 0.049
_REFUND_SHARE = 0.003
_NO_RIDE_SHARE = 0.0008
_SECOND = np.timedelta64(1_000_000, "us")


def write_sample(path: Path, rows: int, seed: int, month: str) -> None:
    """Write `sample_trips` to a .parquet or .csv file; raises `SettingsError` when that cannot be."""
    named = named_month(path)
    if named not in (None, month):
        raise SettingsError(f"{path} is named after {named}, but its trips would be of {month}")
    if path.suffix not in (".parquet", ".csv"):
        raise SettingsError(f"{path} is neither .parquet nor .csv by its name")
    frame = sample_trips(rows, seed, month)
    try:
        if path.suffix == ".parquet":
            frame.write_parquet(path)
        else:
            frame.write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")
    except (OSError, PolarsError) as error:
        raise SettingsError(f"{path} cannot be written: {error}") from error


def sample_trips(rows: int, seed: int, month: str) -> pl.DataFrame:
    """This many trips of a month (as 2023-02), the same for the same arguments, in `SCHEMA`.

    They resemble the real ones: rush hours and popular zones; distances that follow from the zones, durations from
    distance and hour, tips from fare and payment. Some rows have the real files' flaws: a trip for which the driver
    entered nothing, a distance of 0, a refund that repeats its trip with negative amounts, a row that is no ride.
    """
    start, days = _parse_month(month)
    rng = np.random.default_rng(seed)
    refunds = int(rows * _REFUND_SHARE)
    rides = _forget_entries(rng, _rides(rng, rows - refunds, start, days))
    refunded = _refund(rng, rides.filter(_chosen(rng, rides.height, refunds)))
    # Real rows come roughly in the order of the dropoffs, so that half of them go back in time.
    trips = pl.concat([rides, refunded]).sort("lpep_dropoff_datetime", maintain_order=True)
    return _spoil(rng, trips, start)


def _parse_month(month: str) -> tuple[datetime, int]:
    match = re.fullmatch(r"(20\d\d)-(0[1-9]|1[0-2])", month)
    if match is None:
        raise SettingsError(f"{month!r} is no month: give it as in 2023-02")
    year, number = int(match[1]), int(match[2])
    return datetime(year, number, 1), calendar.monthrange(year, number)[1]  # noqa: DTZ001 - the city's local time


def _chosen(rng: np.random.Generator, rows: int, count: int) -> pl.Series:
    """A mask of `rows` with `count` of them picked at random."""
    mask = np.zeros(rows, dtype=bool)
    mask[rng.permutation(rows)[:count]] = True
    return pl.Series(mask)


def _rides(rng: np.random.Generator, count: int, start: datetime, days: int) -> pl.DataFrame:
    city = City()
    pickup_zone = city.pickup_zones(rng, count)
    dropoff_zone = city.dropoff_zones(rng, pickup_zone)
    day, hour = rng.integers(0, days, count), hours(rng, count)
    weekend = (start.weekday() + day) % 7 >= 5
    miles = city.miles(rng, pickup_zone, dropoff_zone).round(2)
    seconds = (60 * minutes(rng, miles, hour, weekend)).astype(np.int64)
    pickup = np.datetime64(start, "us") + ((day * 24 + hour) * 3600 + rng.integers(0, 3600, count)) * _SECOND
    frame = pl.DataFrame(
        {
            "VendorID": rng.choice([1, 2], count, p=[0.13, 0.87]),
            "lpep_pickup_datetime": pickup,
            "lpep_dropoff_datetime": pickup + seconds * _SECOND,
            "store_and_fwd_flag": pl.repeat("N", count, eager=True),
            "RatecodeID": rng.choice([1, 5], count, p=[0.96, 0.04]),
            "PULocationID": pickup_zone,
            "DOLocationID": dropoff_zone,
            "passenger_count": rng.choice(7, count, p=[0.005, 0.85, 0.08, 0.02, 0.01, 0.02, 0.015]),
            "trip_distance": np.where(rng.random(count) < _NO_DISTANCE_SHARE, 0.0, miles),
            **_charges(rng, miles, seconds, hour, weekend),
            "ehail_fee": pl.repeat(None, count, eager=True),
            "trip_type": pl.repeat(1, count, eager=True),
        }
    )
    return frame.select(SCHEMA.names()).cast(SCHEMA)


def _charges(
    rng: np.random.Generator, miles: Floats, seconds: Ints, hour: Ints, weekend: Bools
) -> dict[str, Floats | Ints]:
    """Fare by way and time, tips by fare (cards only: others are not recorded), and the smaller charges."""
    count = len(miles)
    fare = (3.0 + 2.6 * miles + 0.35 * seconds / 60).round(1)
    rush = (hour >= 16) & (hour < 20) & ~weekend
    charges: dict[str, Floats] = {
        "fare_amount": fare,
        "extra": np.where(rush, 2.5, np.where((hour >= 20) | (hour < 6), 1.0, 0.0)),
        "mta_tax": np.full(count, 0.5),
        "tolls_amount": np.where((miles > 8) & (rng.random(count) < 0.4), 6.55, 0.0),
        "improvement_surcharge": np.full(count, 1.0),
        "congestion_surcharge": np.where(rng.random(count) < 0.3, 2.75, 0.0),
    }
    before_tip = np.sum(list(charges.values()), axis=0)
    payment = rng.choice([CARD, CASH, NO_CHARGE, DISPUTE], count, p=[0.665, 0.325, 0.006, 0.004])
    share = rng.choice([0.0, 0.1, 0.15, 0.2, 0.25, 0.3], count, p=[0.14, 0.06, 0.12, 0.48, 0.14, 0.06])
    tip = np.where(payment == CARD, share * before_tip + rng.choice([0.0, 0.5, 1.0], count, p=[0.8, 0.1, 0.1]), 0.0)
    charges["tip_amount"] = tip.round(2)
    charges["total_amount"] = (before_tip + charges["tip_amount"]).round(2)
    return {**charges, "payment_type": payment}


def _forget_entries(rng: np.random.Generator, rides: pl.DataFrame) -> pl.DataFrame:
    forgotten = _chosen(rng, rides.height, round(rides.height * _NOT_ENTERED_SHARE))
    return rides.with_columns(pl.when(~forgotten).then(pl.col(*_BY_DRIVER, "congestion_surcharge")))


def _refund(rng: np.random.Generator, rides: pl.DataFrame) -> pl.DataFrame:
    charges = pl.col(*_CHARGES, "congestion_surcharge", "total_amount")
    payment = pl.Series("payment_type", rng.choice([NO_CHARGE, DISPUTE], rides.height))
    return rides.with_columns(pl.when(charges != 0).then(-charges).otherwise(charges), payment)


def _spoil(rng: np.random.Generator, trips: pl.DataFrame, start: datetime) -> pl.DataFrame:
    """Make some rows no rides: without a pickup time or before the month, without a zone or in one that is none."""
    spoilt = rng.permutation(trips.height)[: round(trips.height * _NO_RIDE_SHARE)]
    flaw = np.zeros(trips.height, dtype=np.int64)
    flaw[spoilt] = 1 + np.arange(len(spoilt)) % 4
    kind = pl.lit(pl.Series(flaw))
    pickup, zone = pl.col("lpep_pickup_datetime"), pl.col("PULocationID")
    return trips.with_columns(
        pl.when(kind == 1)
        .then(None)
        .when(kind == 2)
        .then(start - timedelta(minutes=20))
        .otherwise(pickup)
        .alias("lpep_pickup_datetime"),
        pl.when(kind == 3).then(None).when(kind == 4).then(0).otherwise(zone).alias("PULocationID"),
    ).cast(SCHEMA)
