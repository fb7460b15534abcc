"""Synthetic trips in TLC's schema for green cabs, flaws included, for those who have no data at hand."""

from __future__ import annotations

import calendar
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from braidstream import SettingsError
from producer.city import Bools, City, Floats, Ints, drawn, hours
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
_NO_DISTANCE = ((1, 3, 5, 8, 12, 20), (0.018, 0.025, 0.04, 0.07, 0.15, 0.28))
_CANCELLED_SHARE = 0.016
_LEFT_ON_SHARE = 0.0028
_REFUND_SHARE = 0.003
_NO_RIDE_SHARE = 0.0008
_TIP_SHARES = {0.0: 0.089, 0.1: 0.023, 0.15: 0.032, 0.2: 0.468, 0.25: 0.1, 0.3: 0.048}
_TIP_AMOUNTS = (0.001, 0.002, 0.003, 0.01, 0.12, 0.21, 0.29, 0.48, 0.71, 0.98, 1.24, 1.78, 2.24, 3.15, 9.49)
_UNMEASURED_TIPPED_SHARE = 0.35
_WHOLE_DOLLARS = 0.67
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

    They resemble the real ones (docs/sample.md says how much): days, hours and zones; distances that follow from the
    zones, durations from distance, zones and hour, tips from what is to be paid. Some rows have the real files' flaws:
    a trip for which the driver entered nothing, a distance of 0, a meter that was left on, a refund that repeats its
    trip with negative amounts, a row that is no ride.
    """
    start = datetime.strptime(month, "%Y-%m")  # noqa: DTZ007 - the city's local time
    days = calendar.monthrange(start.year, start.month)[1]
    rng = np.random.default_rng(seed)
    refunds = int(rows * _REFUND_SHARE)
    rides = _forget_entries(rng, _rides(rng, rows - refunds, start, days))
    refunded = _refund(rng, rides.filter(_chosen(rng, rides.height, refunds)))
    # Real rows come roughly in the order of the dropoffs, so that half of them go back in time.
    trips = pl.concat([rides, refunded]).sort("lpep_dropoff_datetime", maintain_order=True)
    return _spoil(rng, trips, start)


def _chosen(rng: np.random.Generator, rows: int, count: int) -> pl.Series:
    """A mask of `rows` with `count` of them picked at random."""
    mask = np.zeros(rows, dtype=bool)
    mask[rng.permutation(rows)[:count]] = True
    return pl.Series(mask)


def _rides(rng: np.random.Generator, count: int, start: datetime, days: int) -> pl.DataFrame:
    city = City()
    pickup_zone, dropoff_zone = city.zones(rng, count)
    weekdays = (start.weekday() + np.arange(days)) % 7
    day, hour = hours(rng, count, weekdays)
    weekend = weekdays[day] >= 5
    miles = city.miles(rng, pickup_zone, dropoff_zone).round(2)
    minutes = city.minutes(rng, pickup_zone, dropoff_zone, miles, hour=hour, weekend=weekend)
    pickup = np.datetime64(start, "us") + ((day * 24 + hour) * 3600 + rng.integers(0, 3600, count)) * _SECOND
    measured, seconds = _measured(rng, miles, (60 * minutes).astype(np.int64))
    frame = pl.DataFrame(
        {
            "VendorID": rng.choice([1, 2], count, p=[0.137, 0.863]),
            "lpep_pickup_datetime": pickup,
            "lpep_dropoff_datetime": pickup + seconds * _SECOND,
            "store_and_fwd_flag": pl.repeat("N", count, eager=True),
            "RatecodeID": rng.choice([1, 5], count, p=[0.975, 0.025]),
            "PULocationID": pickup_zone,
            "DOLocationID": dropoff_zone,
            "passenger_count": rng.choice(7, count, p=[0.005, 0.85, 0.08, 0.015, 0.006, 0.028, 0.016]),
            "trip_distance": measured,
            **_charges(
                rng,
                miles=miles,
                minutes=minutes,
                hour=hour,
                weekend=weekend,
                surcharged=city.surcharged(pickup_zone, dropoff_zone),
                measured=measured > 0,
            ),
            "ehail_fee": pl.repeat(None, count, eager=True),
            "trip_type": pl.repeat(1, count, eager=True),
        }
    )
    return frame.select(SCHEMA.names()).cast(SCHEMA)


def _measured(rng: np.random.Generator, miles: Floats, seconds: Ints) -> tuple[Floats, Ints]:
    """What the meters say: no distance of some, mostly long trips, or of those cancelled at once; some were left on."""
    count = len(miles)
    cancelled, left_on = rng.random(count) < _CANCELLED_SHARE, rng.random(count) < _LEFT_ON_SHARE
    unmeasured = cancelled | (rng.random(count) < np.interp(miles, *_NO_DISTANCE))
    seconds = np.where(cancelled, rng.integers(1, 60, count), seconds)
    return np.where(unmeasured, 0.0, miles), np.where(left_on, rng.integers(80_000, 86_400, count), seconds)


def _charges(
    rng: np.random.Generator,
    *,
    miles: Floats,
    minutes: Floats,
    hour: Ints,
    weekend: Bools,
    surcharged: Bools,
    measured: Bools,
) -> dict[str, Floats | Ints]:
    """Fare by way and time, the smaller charges, and tips by what is due (cards only: others are not recorded)."""
    count = len(miles)
    rush = (hour >= 16) & (hour < 20) & ~weekend
    charges: dict[str, Floats] = {
        "fare_amount": (2.3 + 2.67 * miles + 0.48 * minutes).round(1),
        "extra": np.where(rush, 2.5, np.where((hour >= 20) | (hour < 6), 1.0, 0.0)),
        "mta_tax": np.full(count, 0.5),
        "tolls_amount": np.where(rng.random(count) < np.interp(miles, [3, 18], [0, 0.5]), 6.55, 0.0),
        "improvement_surcharge": np.full(count, 1.0),
        "congestion_surcharge": np.where(surcharged, 2.75, 0.0),
    }
    due = np.sum(list(charges.values()), axis=0)
    tipped = measured | (rng.random(count) < _UNMEASURED_TIPPED_SHARE)
    payment = rng.choice([CARD, CASH, NO_CHARGE, DISPUTE], count, p=[0.637, 0.354, 0.0075, 0.0015])
    charges["tip_amount"] = np.where((payment == CARD) & tipped, _tips(rng, due), 0.0).round(2)
    charges["total_amount"] = (due + charges["tip_amount"]).round(2)
    return {**charges, "payment_type": payment}


def _tips(rng: np.random.Generator, due: Floats) -> Floats:
    """What passengers choose: no tip, one of the shares that the terminal offers, or an amount of their own."""
    count = len(due)
    share = rng.choice([*_TIP_SHARES, np.nan], count, p=[*_TIP_SHARES.values(), 1 - sum(_TIP_SHARES.values())])
    amount = drawn(rng, _TIP_AMOUNTS, count) * np.sqrt(due)
    whole = rng.random(count) < _WHOLE_DOLLARS
    return np.where(np.isnan(share), np.where(whole, np.maximum(amount.round(), 1), amount), share * due)


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
