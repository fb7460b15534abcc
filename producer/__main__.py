"""`python -m producer`: replay TLC trips as `ride_started` events, fetch months of them, or write synthetic ones."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import polars as pl

from braidstream import EventWriter, Settings, SettingsError, logs, open_writer
from braidstream.cli import in_sentences
from producer import options
from producer.download import DownloadSettings, download
from producer.pace import AtOnce, Pace, Rate, Timetable, compressed
from producer.progress import shown_download
from producer.rounds import Rounds, starting_at
from producer.sample import write_sample
from producer.sending import Outcome, counted, send
from producer.trips import Trips, named_month, read_trips
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted

_FILE = click.Path(path_type=Path)


def _open_writer(*, traces: bool) -> EventWriter[RideStarted]:
    settings = Settings.load()
    logs.configure(settings.log_level, settings.log_format)
    return open_writer(RIDES.subjects, settings, traces=traces)


class _ReplayByDefault(click.Group):
    """Takes anything that does not begin with a command's name for the arguments of `replay`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in {*self.commands, "--version"}
        return super().parse_args(ctx, args if named else ["replay", *args])

    def invoke(self, ctx: click.Context) -> Any:
        with in_sentences(ctx):
            return super().invoke(ctx)


@click.group(cls=_ReplayByDefault)
@click.version_option(package_name="braidstream")
def cli() -> None:
    """Replay TLC trips, fetch months of them, or write synthetic ones."""


@cli.command("replay")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FILE)
@click.option(
    "--rate",
    type=options.rate,
    metavar="N",
    help="Send N rides a second. 100..2000/60s changes the rate evenly from 100 to 2000 within 60 s, and stays there.",
)
@click.option(
    "--speedup",
    type=options.factor,
    metavar="X",
    help="Keep the gaps between the pickups, X times as fast and each at most 10 s; 60 makes an hour a minute.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Send only the first N rides.")
@click.option(
    "--start-at",
    type=options.start,
    metavar="TIME|N",
    help="Begin with the first ride from this time on, as in 2023-02-03T08:00, or with the Nth.",
)
@click.option("--loop", is_flag=True, help="Replay for ever, or --limit rides, each time under ids never used before.")
@click.option("--new-ids", is_flag=True, help="Give the rides ids that were never used; else a replay repeats them.")
@click.option(
    "--resume",
    type=_FILE,
    metavar="FILE.json",
    help="Keep in this file how far the replay is, and go on from there when it is there already.",
)
@click.option("--traceparent", is_flag=True, help="Give each ride a trace of its own: a header `traceparent`.")
@click.option(
    "--rejects", type=_FILE, metavar="FILE.csv", help="Write the rows that are no ride, and why, to this file."
)
def replay_command(
    *,
    files: tuple[Path, ...],
    rate: Rate | None,
    speedup: float | None,
    limit: int | None,
    start_at: int | datetime | None,
    loop: bool,
    new_ids: bool,
    resume: Path | None,
    traceparent: bool,
    rejects: Path | None,
) -> None:
    """Replay months of TLC trips (green or yellow, parquet or csv) as `ride_started` events, in order of pickup.

    Without --rate and --speedup, as fast as the broker takes them. Kafka is found by KAFKA_BOOTSTRAP_SERVERS; any
    KAFKA_<PROPERTY> is passed on. Ctrl-C and SIGTERM stop the sending, wait for what was sent, and say how to go on.

    \b
    Examples:
      python -m producer green_tripdata_2023-02.parquet
      python -m producer --rate 1000 --limit 20000 green_tripdata_2023-0*.parquet
      python -m producer --speedup 60 --rejects rejects.csv trips_2019-03.csv
      python -m producer --loop --rate 100..2000/10m green_tripdata_2023-02.parquet
      python -m producer --resume replay.json yellow_tripdata_2023-02.parquet

    \b
    Without data at hand (see their --help):
      python -m producer download --month 2023-02
      python -m producer sample trips.parquet
    """
    if rate is not None and speedup is not None:
        raise click.UsageError("--rate and --speedup exclude each other: give one of them.")
    if loop and new_ids:
        raise click.UsageError("--loop gives new ids already: leave --new-ids out.")
    if rejects is not None and rejects.resolve() in {file.resolve() for file in files}:
        raise SettingsError(f"--rejects would overwrite the trips in {rejects}: give another file")
    if rejects is not None and resume is not None and rejects.resolve() == resume.resolve():
        raise click.UsageError("--rejects and --resume name the same file.")
    trips = read_trips(files)
    if rejects is not None:
        _write_rejects(trips, rejects)
    if trips.rides.is_empty():
        raise SettingsError(f"no row of {', '.join(map(str, files))} is a ride: {_rejected(trips)}")
    skipped = starting_at(trips.rides, start_at) if start_at is not None else 0
    chosen = trips.rides.slice(skipped)
    total = limit if loop else min(limit or chosen.height, chosen.height)
    rounds = Rounds(chosen, total, secrets.token_hex(16) if loop or new_ids else None)
    pace = _pace(chosen, rate, speedup, loop)
    outcome = send(rounds, _open_writer(traces=traceparent), pace, resume)
    if outcome.total is not None and outcome.before >= outcome.total:
        click.echo(f"All {counted(outcome.total, 'ride')} were acknowledged before, as {resume} says")
        return
    click.echo(f"{outcome.summary}, {_rejected(trips)}, {outcome.timing}")
    if outcome.stopped_by is not None:
        if outcome.left != 0 and (resume is not None or not loop):
            click.echo(_how_to_go_on(outcome, skipped, limit, resume))
        click.get_current_context().exit(130 if outcome.stopped_by is signal.SIGINT else 0)


@cli.command("download")
@click.option(
    "--month",
    "months",
    type=options.month,
    metavar="YYYY-MM",
    multiple=True,
    required=True,
    help="Which month; may be given several times.",
)
@click.option(
    "--taxi", type=click.Choice(["green", "yellow"]), default="green", show_default=True, help="Which kind of cab."
)
@click.option("--to", "folder", type=_FILE, metavar="DIR", default="data", show_default=True, help="Where to.")
def download_command(months: tuple[str, ...], taxi: str, folder: Path) -> None:
    """Fetch months of trips from the NYC Taxi & Limousine Commission, or from TRIPS_URL.

    A file is there when it is whole and was read as trips. What breaks off is gone on with by the same command.

    \b
    Examples:
      python -m producer download --month 2023-01 --month 2023-02
      python -m producer download --month 2023-01 --taxi yellow --to /srv/trips
    """
    address = DownloadSettings.load().trips_url
    for month in months:
        name = f"{taxi}_tripdata_{month}.parquet"
        to = folder / name
        if to.exists():
            click.echo(f"{to} is there already, and was left as it is")
            continue
        try:
            with shown_download(f"{taxi} {month}") as shown:
                trips = download(f"{address}/{name}", to, shown)
        except KeyboardInterrupt:
            click.echo("Stopped: the same command goes on from what has come", err=True)
            raise
        click.echo(f"{to}: {counted(trips.rides.height, 'ride')}, {_rejected(trips)}")


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
@click.option(
    "--month",
    type=options.month,
    metavar="YYYY-MM",
    help="The trips' month. Default: the one in the file's name, else 2023-01.",
)
@click.option("--force", is_flag=True, help="Replace OUT where it is there already.")
def sample_command(*, out: Path, rows: int, seed: int, month: str | None, force: bool) -> None:
    """Write synthetic trips in TLC's schema for green cabs to OUT, a .parquet or .csv file.

    \b
    Examples:
      python -m producer sample trips.parquet
      python -m producer sample green_2024-05.csv --rows 100000 --seed 7
    """
    if out.exists() and not force:
        raise SettingsError(f"{out} is there already: give another name, or replace it with --force")
    write_sample(out, rows, seed, month or named_month(out) or "2023-01")
    click.echo(f"{counted(rows, 'synthetic trip')} written to {out}")


def _pace(rides: pl.DataFrame, rate: Rate | None, speedup: float | None, loop: bool) -> Callable[[int], Pace]:
    """The pace, given from which ride on: a resumed replay keeps its gaps, and begins its rates anew."""
    if speedup is None:
        pace = rate or AtOnce()
        return lambda _first: pace
    times = compressed(rides["pickup_at"].to_numpy(), speedup)
    if loop and not times[-1]:
        raise SettingsError("--speedup has no gaps to keep, for all rides begin at the same time: leave it out")
    return lambda first: Timetable(times, first)


def _how_to_go_on(outcome: Outcome, skipped: int, limit: int | None, resume: Path | None) -> str:
    if resume is not None:
        return f"The same command goes on from there, as {resume} says"
    rest = f"--start-at {skipped + outcome.sent + 1}" + (f" --limit {outcome.left}" if limit is not None else "")
    return f"The same command with {rest} sends the rest"


def _rejected(trips: Trips) -> str:
    by_reason = ", ".join(f"{count:,} {reason}" for reason, count in trips.rejected().items())
    return f"{counted(trips.rejects.height, 'row')} rejected" + (f" ({by_reason})" if by_reason else "")


def _write_rejects(trips: Trips, path: Path) -> None:
    try:
        trips.rejects.write_csv(path)
    except OSError as error:
        raise SettingsError(f"--rejects: {path} cannot be written: {error}") from error


if __name__ == "__main__":
    cli(prog_name="python -m producer")
