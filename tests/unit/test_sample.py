"""Synthetic trips: TLC's schema, the same for a seed, learnable, with the real files' flaws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sklearn.ensemble import HistGradientBoostingRegressor

from bench.sample import amounts, kinds, total_variation, wasserstein
from braidstream.errors import SettingsError
from producer.sample import CARD, SCHEMA, sample_trips, write_sample
from producer.trips import Trips, read_trips
from tests.real_trips import real_month

ROWS = 20_000
DURATION = (pl.col("lpep_dropoff_datetime") - pl.col("lpep_pickup_datetime")).dt.total_seconds() / 60

# What follows is of TLC's green file of February 2023, which the sample is not fitted to.
HOURS = (18, 12, 10, 8, 7, 6, 14, 37, 47, 52, 52, 54, 53, 59, 64, 70, 79, 77, 77, 61, 50, 38, 32, 24)
"""In thousandths of the rides."""
BUSIEST = {
    "pickup zone": {74: 0.183, 75: 0.136, 166: 0.065, 41: 0.062, 95: 0.055, 82: 0.042, 43: 0.04, 97: 0.031},
    "dropoff zone": {74: 0.05, 75: 0.049, 41: 0.039, 236: 0.039, 42: 0.035, 238: 0.035, 166: 0.034, 263: 0.023},
}
QUANTILES = {
    "distance, miles": (0.58, 1.22, 1.96, 3.46, 8.34, 15.0),
    "duration, minutes": (3.78, 7.52, 11.65, 17.75, 33.0, 47.45),
    "tip, dollars": (0.0, 1.74, 2.8, 4.19, 8.0, 13.31),
}
"""The quantiles of 5, 25, 50, 75, 95 and 99 %."""


@pytest.fixture(scope="module")
def trips() -> pl.DataFrame:
    return sample_trips(ROWS, seed=1, month="2023-02")


def paid(trips: pl.DataFrame) -> pl.DataFrame:
    return trips.filter(pl.col("total_amount") >= 0)


def test_schema_is_that_of_a_real_month() -> None:
    assert pl.read_parquet_schema(real_month("2023-02")) == SCHEMA


def test_written_files_have_the_schema_and_the_rows(tmp_path: Path) -> None:
    write_sample(tmp_path / "t.parquet", 500, seed=3, month="2024-02")
    write_sample(tmp_path / "t.csv", 500, seed=3, month="2024-02")
    written = pl.read_parquet(tmp_path / "t.parquet")
    assert written.schema == SCHEMA
    assert written.height == 500
    assert_frame_equal(pl.read_csv(tmp_path / "t.csv", schema=SCHEMA), written)


def test_same_seed_same_trips(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        write_sample(tmp_path / name, 300, seed=5, month="2023-02")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert not sample_trips(300, seed=5, month="2023-02").equals(sample_trips(300, seed=6, month="2023-02"))


@pytest.mark.parametrize("rows", [1, 2, 10, 999])
def test_any_number_of_rows(rows: int) -> None:
    assert sample_trips(rows, seed=1, month="2023-12").height == rows


def test_rush_hours_and_popular_zones(trips: pl.DataFrame) -> None:
    by_hour = trips.group_by(pl.col("lpep_pickup_datetime").dt.hour().alias("hour")).len()
    hours = dict(by_hour.drop_nulls().iter_rows())
    assert hours[18] > 5 * hours[4]
    assert trips["PULocationID"].value_counts(sort=True)["count"][0] > ROWS / 20


def test_zones_and_month_are_real(trips: pl.DataFrame) -> None:
    rides = trips.filter(pl.col("PULocationID") > 0)
    assert rides["PULocationID"].is_between(1, 265).all()
    assert rides["DOLocationID"].is_between(1, 265).all()
    assert trips.filter(pl.col("lpep_pickup_datetime").dt.strftime("%Y-%m") == "2023-02").height > 0.99 * ROWS


def test_half_of_the_rows_go_back_in_time(trips: pl.DataFrame) -> None:
    back = (trips["lpep_pickup_datetime"].diff().dt.total_seconds() < 0).mean()
    assert back == pytest.approx(0.47, abs=0.1)


def test_distance_depends_on_the_zones(trips: pl.DataFrame) -> None:
    rides = trips.filter(pl.col("trip_distance") > 0)
    within = rides.group_by("PULocationID", "DOLocationID").agg(pl.col("trip_distance").std(), pl.len())
    spread = within.filter(pl.col("len") >= 20).select(pl.col("trip_distance").mean()).item()
    assert spread < rides.select(pl.col("trip_distance").std()).item() / 3


def test_tips_follow_fare_and_payment(trips: pl.DataFrame) -> None:
    rides = paid(trips).drop_nulls("payment_type")
    assert rides.filter(pl.col("payment_type") != CARD)["tip_amount"].max() == 0
    cards = rides.filter(pl.col("payment_type") == CARD)
    share = cards.select(pl.col("tip_amount") / (pl.col("total_amount") - pl.col("tip_amount"))).to_series()
    assert share.median() == pytest.approx(0.2, abs=0.01)
    assert (share == 0).mean() == pytest.approx(0.11, abs=0.03)


def test_totals_are_the_sum_of_the_charges(trips: pl.DataFrame) -> None:
    charges = ["fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount"]
    charges += ["improvement_surcharge", "congestion_surcharge"]
    known = trips.drop_nulls("congestion_surcharge")
    assert known.select((pl.sum_horizontal(charges) - pl.col("total_amount")).abs().max()).item() < 0.01


def test_flaws(trips: pl.DataFrame) -> None:
    not_entered = trips.filter(pl.col("payment_type").is_null())
    assert not_entered["passenger_count"].is_null().all()
    assert not_entered.height == pytest.approx(0.063 * ROWS, rel=0.1)
    assert (trips["trip_distance"] == 0).mean() == pytest.approx(0.049, abs=0.01)


def test_refunds_repeat_their_ride(trips: pl.DataFrame) -> None:
    ride = ["lpep_dropoff_datetime", "DOLocationID", "trip_distance"]
    refunds = trips.filter(pl.col("fare_amount") < 0)
    assert refunds.height == 60
    pairs = refunds.join(paid(trips), on=ride).filter(pl.col("fare_amount") == -pl.col("fare_amount_right"))
    assert pairs.height >= 60


def test_rows_that_are_no_ride(tmp_path: Path) -> None:
    write_sample(tmp_path / "trips.parquet", ROWS, seed=1, month="2023-02")
    trips = read_trips([tmp_path / "trips.parquet"], outcomes=True)
    assert trips.rejected() == {
        "no pickup time": 4,
        "pickup outside the file's month": 4,
        "no zone": 4,
        "zone outside 1..265": 4,
    }
    assert trips.rides.height == ROWS - 16


def learnable(trips: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """What is known at the start of each ride, and the minutes that it took."""
    rides = trips.with_columns(hour=pl.col("lpep_pickup_datetime").dt.hour(), minutes=DURATION)
    rides = rides.filter(pl.col("minutes").is_between(1, 60))
    return rides.select("trip_distance", "hour"), rides["minutes"]


def test_duration_can_be_learnt_and_holds_for_another_seed(trips: pl.DataFrame) -> None:
    known, minutes = learnable(trips)
    other_known, other_minutes = learnable(sample_trips(ROWS, seed=2, month="2023-03"))
    model = HistGradientBoostingRegressor(random_state=0).fit(known.to_numpy(), minutes.to_numpy())
    error = model.predict(other_known.to_numpy()) - other_minutes.to_numpy()
    assert np.sqrt(np.mean(error**2)) < 0.6 * np.std(other_minutes.to_numpy())


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Trips:
    """As many trips as a real month has, as models read them."""
    path = tmp_path_factory.mktemp("sample") / "sample.parquet"
    write_sample(path, 65_000, seed=1, month="2023-02")
    return read_trips([path], outcomes=True)


def test_hours_are_those_of_a_real_month(read: Trips) -> None:
    shares = kinds(read)["hour"].value_counts(normalize=True).sort("hour")["proportion"].to_numpy()
    assert np.abs(shares - np.array(HOURS) / 1000).sum() / 2 < 0.03


@pytest.mark.parametrize("end", BUSIEST)
def test_busy_zones_are_those_of_a_real_month(read: Trips, end: str) -> None:
    zones = kinds(read)[end]
    assert {zone: (zones == zone).mean() for zone in BUSIEST[end]} == pytest.approx(BUSIEST[end], rel=0.15, abs=0.005)


@pytest.mark.parametrize("amount", QUANTILES)
def test_amounts_are_those_of_a_real_month(read: Trips, amount: str) -> None:
    found = np.quantile(amounts(read)[amount].to_numpy(), [0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
    assert found == pytest.approx(QUANTILES[amount], rel=0.12)


def test_it_is_nearly_as_close_to_a_real_month_as_another_real_month(read: Trips) -> None:
    real = read_trips([real_month("2023-02")], outcomes=True)
    limits = {"pickup zone": 0.06, "dropoff zone": 0.06, "both zones": 0.3, "hour": 0.03, "weekday and hour": 0.08}
    found = {name: total_variation(of, kinds(real)[name]) for name, of in kinds(read).items()}
    assert {name for name, distance in found.items() if distance > limits[name]} == set()
    limits = {"distance, miles": 0.15, "duration, minutes": 0.4, "tip, dollars": 0.2}
    found = {name: wasserstein(of, amounts(real)[name]) for name, of in amounts(read).items()}
    assert {name for name, distance in found.items() if distance > limits[name]} == set()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("t.json", r"t\.json is neither \.parquet nor \.csv by its name"),
        ("t.csv.gz", r"is neither \.parquet nor \.csv by its name"),
        ("2023-01.csv", r"is named after 2023-01, but its trips would be of 2023-02"),
        ("absent/t.csv", r"t\.csv cannot be written: "),
        ("absent/t.parquet", r"t\.parquet cannot be written: "),
    ],
)
def test_files_that_cannot_be_written(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        write_sample(tmp_path / name, 10, seed=1, month="2023-02")
