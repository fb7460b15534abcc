"""`python -m bench`: measure the ride pipeline, or print a report again."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from confluent_kafka import KafkaException
from rich.console import Console

from bench import (
    decisions,
    end_to_end,
    latency,
    machine,
    memory,
    poison,
    producer,
    report,
    restart,
    rivals,
    scoring,
    stages,
)
from bench.measurements import Measurement, Report
from bench.records import FEATURES, Backlog
from bench.setting import Part, Setting
from braidstream import logs
from braidstream.cli.errors import in_sentences
from braidstream.errors import UnavailableError
from braidstream.models.folder import is_model
from braidstream.settings import WorkerSettings
from producer.sample import write_sample
from tests.containers import KAFKA_IMAGE, run_kafka_on_host

_DATA = Path("../shared/data")
_REPLAYED = _DATA / "green_tripdata_2023-02.parquet"
_TRAINED_ON = _DATA / "green_tripdata_2023-01.parquet"

_PARTS: dict[str, Part] = {
    "ceilings": scoring.ceilings,
    "scoring": scoring.full,
    "partitions": scoring.by_partitions,
    "decisions": decisions.full,
    "producer": producer.full,
    "end-to-end": end_to_end.full,
    "latency": latency.full,
    "stages": stages.full,
    "memory": memory.full,
    "poison": poison.full,
    "restart": restart.full,
    "peers": rivals.full,
}
"""The parts by name, in the order in which `full` runs them; the ceilings are measured with every part too."""

_QUICK: list[Part] = [scoring.quick, decisions.quick]


@dataclass(frozen=True)
class _Broker:
    address: str
    version: str


class _RunByDefault(click.Group):
    """Takes anything that does not begin with a command's name for the arguments of `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in {*self.commands, "--help"}
        return super().parse_args(ctx, args if named else ["run", *args])


@click.group(cls=_RunByDefault)
def cli() -> None:
    """Measure the ride pipeline on a real Kafka, or print a report again."""


@cli.command("run")
@click.argument("names", metavar="[quick|full|NAME...]", nargs=-1, type=click.Choice(["quick", "full", *_PARTS]))
@click.option("--rides", default=400_000, show_default=True, help="Rides that are scored in a run.")
@click.option("--runs", default=5, show_default=True, help="Runs of everything, one after the other.")
@click.option(
    "--batch",
    default=int(WorkerSettings.model_fields["batch_size"].default),
    show_default=True,
    help="Most records that a worker or the pass-through takes at once.",
)
@click.option("--partitions", default=6, show_default=True, help="Partitions of every topic.")
@click.option(
    "--json", "saved", type=click.Path(dir_okay=False, path_type=Path), help="Write every run's figures here."
)
@click.option(
    "--trips",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Trips to repeat. Default: a month of ../shared/data, else synthetic ones.",
)
@click.option("--kafka", default="unknown", help="The broker's version, for the report, if it is not started here.")
def run(
    *,
    names: tuple[str, ...],
    rides: int,
    runs: int,
    batch: int,
    partitions: int,
    saved: Path | None,
    trips: Path | None,
    kafka: str,
) -> None:
    """Measure, on the broker of KAFKA_BOOTSTRAP_SERVERS or in a container, and print the tables.

    \b
    quick   the main ratios in about two minutes (the default)
    full    everything, in hours
    NAME    ceilings, scoring, partitions, decisions, producer, end-to-end, latency, stages, memory, poison,
            restart, peers
    """
    logs.configure("warning", "auto")
    trips = trips or (_REPLAYED if _REPLAYED.exists() else None)
    with in_sentences(click.get_current_context()), tempfile.TemporaryDirectory() as folder, _broker(kafka) as broker:
        models = _trained(Path("models"), Path(folder))
        setting = Setting(
            broker=broker.address,
            partitions=partitions,
            rides=rides,
            runs=runs,
            batch=batch,
            backlog=Backlog.of(trips, models),
            trips=trips,
            models=models,
            scratch=Path(folder),
        )
        sizes = {"rides": rides, "runs": runs, "batch": batch, "partitions": partitions}
        names = names or ("quick",)
        context = {
            **machine.context(broker.version),
            "settings": {**sizes, "trips": trips.name if trips else "synthetic"},
        }
        measured = Report(context, [])
        for measurement in _measure(setting, [part for name in names for part in _parts(name)]):
            measured.measurements.append(measurement)
            if saved is not None:
                measured.save(saved)
        report.show(measured, _console())


@cli.command("report")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--markdown", "as_markdown", is_flag=True, help="As markdown, with a chart.")
def report_command(file: Path, *, as_markdown: bool) -> None:
    """Print a report that was written by --json."""
    with in_sentences(click.get_current_context()):
        saved = Report.load(file)
        if as_markdown:
            click.echo(report.markdown(saved), nl=False)
        else:
            report.show(saved, _console())


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=100)


def _parts(name: str) -> Sequence[Part]:
    if name == "quick":
        return _QUICK
    return [part for other, part in _PARTS.items() if other != "ceilings"] if name == "full" else [_PARTS[name]]


def _measure(setting: Setting, parts: Sequence[Part]) -> Iterator[Measurement]:
    try:
        for measurement in (measurement for part in parts for measurement in part(setting)):
            figures = ", ".join(f"{name} {value:,.4g}" for name, value in measurement.figures.items())
            click.echo(f"{measurement.part} {measurement.run + 1}: {measurement.subject}: {figures}", err=True)
            yield measurement
    except KafkaException as error:
        raise UnavailableError(f"the broker at {setting.broker} failed: {error.args[0].str()}") from error


@contextmanager
def _broker(version: str) -> Iterator[_Broker]:
    if address := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield _Broker(address, version)
        return
    with run_kafka_on_host() as address:
        yield _Broker(address, KAFKA_IMAGE.partition(":")[2])


def _trained(models: Path, scratch: Path) -> Path:
    """The folder of the models; those that are missing are trained."""
    trips = _TRAINED_ON
    for name in FEATURES:
        if is_model(models / name):
            continue
        if not trips.exists():
            trips = scratch / "trips_2023-01.parquet"
            write_sample(trips, 20_000, seed=1, month="2023-01")
        command = [sys.executable, "-m", f"consumers.{name}.train", "--trips", str(trips)]
        subprocess.run(  # noqa: S603 - this package's own command
            [*command, "--model-uri", str(models / name)], check=True
        )
    return models


if __name__ == "__main__":
    cli(prog_name="python -m bench")
