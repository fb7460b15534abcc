"""`python -m producer`: replay TLC trips as `ride_started` events, or write synthetic ones."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import polars as pl

from braidstream import EventWriter, FatalError, Settings, SettingsError, logs, open_writer
from braidstream.cli import in_sentences
from producer.pace import Seconds, at_once, at_rate, compressed
from producer.progress import shown_progress
from producer.replay import replay
from producer.sample import write_sample
from producer.stop import stop_on_signals
from producer.trips import Trips, encoded, named_month, read_trips
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted

_FILE = click.Path(path_type=Path)


def _open_writer() -> EventWriter[RideStarted]:
    settings = Settings.load()
    logs.configure(settings.log_level, settings.log_format)
    return open_writer(RIDES.subjects, settings)


class _ReplayByDefault(click.Group):
    """Takes anything that does not begin with a command's name for the arguments of `replay`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if named else ["replay", *args])

    def invoke(self, ctx: click.Context) -> Any:
        with in_sentences(ctx):
            return super().invoke(ctx)


def _positive(_ctx: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"{value:g} is not a number above 0.")
    return value


@click.group(cls=_ReplayByDefault)
def cli() -> None:
    """Replay TLC trips, or write synthetic ones."""


@cli.command("replay")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FILE)
@click.option("--rate", type=float, metavar="N", callback=_positive, help="Send N rides a second.")
@click.option(
    "--speedup",
    type=float,
    metavar="X",
    callback=_positive,
    help="Keep the gaps between the pickups, X times as fast and each at most 10 s; 60 makes an hour a minute.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Send only the first N rides.")
@click.option("--new-ids", is_flag=True, help="Give the rides ids that were never used; else a replay repeats them.")
@click.option(
    "--rejects", type=_FILE, metavar="FILE.csv", help="Write the rows that are no ride, and why, to this file."
)
def replay_command(
    *,
    files: tuple[Path, ...],
    rate: float | None,
    speedup: float | None,
    limit: int | None,
    new_ids: bool,
    rejects: Path | None,
) -> None:
    """Replay months of TLC trips (green or yellow, parquet or csv) as `ride_started` events, in order of pickup.

    Without --rate and --speedup, as fast as the broker takes them. Kafka is found by KAFKA_BOOTSTRAP_SERVERS; any
    KAFKA_<PROPERTY> is passed on. Ctrl-C and SIGTERM stop the sending and wait for what was sent.

    \b
    Examples:
      python -m producer green_tripdata_2023-02.parquet
      python -m producer --rate 1000 --limit 20000 green_tripdata_2023-0*.parquet
      python -m producer --speedup 60 --rejects rejects.csv yellow_tripdata_2019-03.csv

    \b
    Without data at hand:
      python -m producer sample trips.parquet     (python -m producer sample --help)
    """
    if rate is not None and speedup is not None:
        raise click.UsageError("--rate and --speedup exclude each other: give one of them.")
    if rejects is not None and rejects.resolve() in {file.resolve() for file in files}:
        raise SettingsError(f"--rejects would overwrite the trips in {rejects}: give another file")
    trips = read_trips(files)
    if new_ids:
        trips = trips.with_new_ids()
    if rejects is not None:
        _write_rejects(trips, rejects)
    if trips.rides.is_empty():
        raise SettingsError(f"no row of {', '.join(map(str, files))} is a ride: {_rejected(trips)}")
    chosen = trips.rides.head(limit) if limit is not None else trips.rides
    outcome = _send(chosen, _due(chosen, rate, speedup))
    click.echo(f"{outcome.summary}, {_rejected(trips)}, {outcome.timing}")
    if outcome.stopped_by is not None:
        click.get_current_context().exit(130 if outcome.stopped_by is signal.SIGINT else 0)


@cli.command("sample")
@click.argument("out", type=_FILE)
@click.option(
    "--rows", metavar="N", type=click.IntRange(min=1), default=20_000, show_default=True, help="How many trips."
)
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="The same seed, the same trips.",
)
@click.option("--month", metavar="YYYY-MM", help="The trips' month. Default: the one in the file's name, else 2023-01.")
def sample_command(out: Path, rows: int, seed: int, month: str | None) -> None:
    """Write synthetic trips in TLC's schema for green cabs to OUT, a .parquet or .csv file.

    \b
    Examples:
      python -m producer sample trips.parquet
      python -m producer sample green_2024-05.csv --rows 100000 --seed 7
    """
    write_sample(out, rows, seed, month or named_month(out) or "2023-01")
    click.echo(f"{_counted(rows, 'synthetic trip')} written to {out}")


@dataclass(frozen=True)
class _Outcome:
    sent: int
    acknowledged: int
    seconds: float
    stopped_by: signal.Signals | None

    @property
    def summary(self) -> str:
        counts = f"{_counted(self.sent, 'ride')} sent, {self.acknowledged:,} acknowledged"
        return counts if self.stopped_by is None else f"Stopped by {self.stopped_by.name}: {counts}"

    @property
    def timing(self) -> str:
        return f"{self.seconds:,.1f} s, {self.sent / self.seconds if self.seconds else 0:,.0f} rides a second"


def _due(chosen: pl.DataFrame, rate: float | None, speedup: float | None) -> Seconds:
    if rate is not None:
        return at_rate(chosen.height, rate)
    return at_once(chosen.height) if speedup is None else compressed(chosen["pickup_at"].to_numpy(), speedup)


def _send(chosen: pl.DataFrame, due: Seconds) -> _Outcome:
    # The replay itself waits for what it sent; leaving the writer's own context would wait again after a failure.
    writer = _open_writer()
    with shown_progress(chosen.height) as progress, stop_on_signals() as stop:
        start = time.monotonic()
        try:
            sent = replay(encoded(chosen, writer.encode), writer, due=due, stop=stop, progress=progress)
        except FatalError as error:
            raise FatalError(f"{error} ({writer.acknowledged:,} rides had been acknowledged)") from error
        return _Outcome(sent, writer.acknowledged, time.monotonic() - start, stop.received)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _rejected(trips: Trips) -> str:
    by_reason = ", ".join(f"{count:,} {reason}" for reason, count in trips.rejected().items())
    return f"{_counted(trips.rejects.height, 'row')} rejected" + (f" ({by_reason})" if by_reason else "")


def _write_rejects(trips: Trips, path: Path) -> None:
    try:
        trips.rejects.write_csv(path)
    except OSError as error:
        raise SettingsError(f"--rejects: {path} cannot be written: {error}") from error


if __name__ == "__main__":
    cli(prog_name="python -m producer")
