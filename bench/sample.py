"""`python -m bench.sample`: how much synthetic trips resemble real ones, and what models learn from them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import polars as pl

from braidstream.cli.errors import in_sentences
from consumers.duration.train import DURATION
from consumers.tip.train import TIP
from producer.sample import write_sample
from producer.trips import Trips, named_month, read_trips

_DATA = Path("../shared/data")
_CALIBRATED = _DATA / "green_tripdata_2023-01.parquet"
_HELD_OUT = _DATA / "green_tripdata_2023-02.parquet"
_FILE = click.Path(path_type=Path)
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_TASKS = (DURATION, TIP)


def kinds(trips: Trips) -> dict[str, pl.Series]:
    """What trips are of, to be compared by `total_variation`; trips must be read with outcomes, as for `amounts`."""
    rides = trips.rides.select(
        "pickup_zone",
        "dropoff_zone",
        pair=pl.col("pickup_zone") * 1000 + pl.col("dropoff_zone"),
        hour=pl.col("pickup_at").dt.hour(),
        weekday_hour=pl.col("pickup_at").dt.weekday().cast(pl.Int32) * 24 + pl.col("pickup_at").dt.hour(),
    )
    names = ("pickup zone", "dropoff zone", "both zones", "hour", "weekday and hour")
    return dict(zip(names, rides, strict=True))


def amounts(trips: Trips) -> dict[str, pl.Series]:
    """What trips have an amount of, to be compared by `wasserstein`: the durations and tips that models learn from."""
    return {
        "distance, miles": trips.rides["trip_distance"].drop_nulls(),
        "duration, minutes": DURATION.outcomes(trips.rides)["outcome"],
        "tip, dollars": TIP.outcomes(trips.rides)["outcome"],
    }


def total_variation(one: pl.Series, other: pl.Series) -> float:
    """The share of trips that would have to be of another kind for both to be the same: 0 to 1."""
    shares = [values.alias("kind").value_counts(normalize=True) for values in (one, other)]
    both = shares[0].join(shares[1], on="kind", how="full").fill_null(0)
    return float((both["proportion"] - both["proportion_right"]).abs().sum() / 2)


def wasserstein(one: pl.Series, other: pl.Series) -> float:
    """By how much trips differ in the mean when both are put in order, in their unit."""
    at = (np.arange(5000) + 0.5) / 5000
    return float(np.abs(np.quantile(one.to_numpy(), at) - np.quantile(other.to_numpy(), at)).mean())


class _Months(NamedTuple):
    calibrated: Trips
    held_out: Trips
    sample: Trips
    other_sample: Trips


def _distances(months: _Months) -> list[tuple[str, float, float]]:
    """What is measured, the sample's distance from the month held out, and the real months' from one another."""
    rows = []
    for measured, distance in ((kinds, total_variation), (amounts, wasserstein)):
        held_out, calibrated, sample = (
            measured(trips) for trips in (months.held_out, months.calibrated, months.sample)
        )
        rows += [(name, distance(sample[name], of), distance(calibrated[name], of)) for name, of in held_out.items()]
    return rows


def _errors(months: _Months, folder: Path) -> list[tuple[str, str, list[dict[str, float]]]]:
    """What models were trained on, what they were measured on, and the errors of each."""
    found = []
    for name, trips in (("2023-01", months.calibrated), ("sample", months.sample)):
        for task in _TASKS:
            task.train(trips, folder / name / task.name)
        others = {"2023-02": months.held_out, "another sample": months.other_sample}
        for other, measured in others.items():
            errors = [task.evaluate(measured, str(folder / name / task.name)) for task in _TASKS]
            found.append((name, other, errors))
    return found


def _print(months: _Months, folder: Path) -> None:
    click.echo("| | sample and 2023-02 | 2023-01 and 2023-02 |\n| --- | --- | --- |")
    for name, sample, real in _distances(months):
        click.echo(f"| {name} | {sample:.3f} | {real:.3f} |")
    click.echo(f"\n| quantiles | of | {' | '.join(f'{at:.0%}' for at in _QUANTILES)} |\n{'| --- ' * 8}|")
    by_month = {"sample": months.sample, "2023-01": months.calibrated, "2023-02": months.held_out}
    found = {name: amounts(trips) for name, trips in by_month.items()}
    for amount in found["sample"]:
        for name, values in found.items():
            quantiles = np.quantile(values[amount].to_numpy(), _QUANTILES)
            click.echo(f"| {amount} | {name} | {' | '.join(f'{value:.2f}' for value in quantiles)} |")
    click.echo("\n| trained on | measured on | duration: RMSE | MAE | tip: RMSE | MAE |\n" + "| --- " * 6 + "|")
    for trained, measured, errors in _errors(months, folder):
        cells = [f"{error[name]:.2f}" for error in errors for name in ("rmse", "mae")]
        click.echo(f"| {trained} | {measured} | {' | '.join(cells)} |")


@click.command()
@click.option("--calibrated", type=_FILE, default=_CALIBRATED, show_default=True, help="The month it is fitted to.")
@click.option("--held-out", type=_FILE, default=_HELD_OUT, show_default=True, help="A month it has not seen.")
@click.option("--rows", type=click.IntRange(min=1000), default=68_000, show_default=True, help="Trips of a sample.")
@click.pass_context
def main(ctx: click.Context, *, calibrated: Path, held_out: Path, rows: int) -> None:
    """Compare synthetic trips with two real months, and the models that are trained on them, in Markdown."""
    with in_sentences(ctx), tempfile.TemporaryDirectory(prefix="braidstream-sample-") as name:
        folder = Path(name)
        real = [read_trips([file], outcomes=True) for file in (calibrated, held_out)]
        month = named_month(held_out) or "2023-02"
        samples = []
        for seed in (1, 2):
            path = folder / f"{seed}.parquet"
            write_sample(path, rows, seed, month)
            samples.append(read_trips([path], outcomes=True))
        _print(_Months(*real, *samples), folder)


if __name__ == "__main__":
    main(prog_name="python -m bench.sample")
