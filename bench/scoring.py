"""How fast one worker process scores a backlog: `python -m bench.scoring --trips FILE [--rides 200000]`.

Fills a topic of its own on the broker of `KAFKA_BOOTSTRAP_SERVERS`, starts one worker of the duration consumer as a
user would, and reads the broker's own timestamps of the predictions. The time of starting does not count.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import click
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from confluent_kafka.admin import AdminClient

from braidstream import logs
from braidstream.errors import BraidstreamError
from braidstream.settings import Settings
from braidstream.streaming import clients, topics
from braidstream.streaming.ports import Partition
from braidstream.writer import open_writer
from producer.trips import read_trips, rides
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted

_PATIENCE = 300.0


def _backlog(trips: Path, count: int) -> Iterator[RideStarted]:
    frame = read_trips([trips]).rides
    copies = itertools.chain.from_iterable(rides(frame) for _ in itertools.count())
    for ride in itertools.islice(copies, count):
        yield ride.model_copy(update={"ride_id": str(uuid.uuid4())})


def _delete(admin: AdminClient, names: list[str]) -> None:
    for future in admin.delete_topics(names).values():
        future.result()


def _timestamps(settings: Settings, count: int) -> list[int]:
    """The broker's timestamps of the predictions, in milliseconds, once there are `count` of them."""
    topic = settings.named(RIDES.predictions.name)
    reader = clients.reader(settings, "bench")
    reader.assign([TopicPartition(*Partition(topic, n), OFFSET_BEGINNING) for n in range(settings.partitions)])
    found: list[int] = []
    deadline = time.monotonic() + _PATIENCE
    while len(found) < count and time.monotonic() < deadline:
        found += [message.timestamp()[1] for message in reader.consume(10_000, 0.5) if message.error() is None]
    reader.close()
    if len(found) != count:
        raise click.ClickException(f"{len(found)} predictions for {count} rides")
    return sorted(found)


def measure(trips: Path, count: int, guarantee: str) -> dict[str, object]:
    """Score a backlog of `count` rides once; gives rides a second, and the worker's CPU seconds."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}."
    environ = {**os.environ, "TOPIC_PREFIX": prefix, "PROCESSING_GUARANTEE": guarantee}
    settings = Settings.load().model_copy(update={"topic_prefix": prefix})
    admin = clients.admin(settings)
    specs = topics.specs(RIDES, settings)
    topics.create(admin, specs, settings.replication_factor)
    try:
        with open_writer(RIDES.subjects, settings) as writer:
            for ride in _backlog(trips, count):
                writer.send(ride)
            writer.flush()
        before = os.times()
        worker = subprocess.Popen([sys.executable, "-m", "consumers.duration"], env=environ)
        try:
            stamps = _timestamps(settings, count)
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(30)
        after = os.times()
    finally:
        _delete(admin, [spec.name for spec in specs])
    # The first batch is left out: it holds the worker's connecting to the broker.
    settled = stamps[len(stamps) // 20 :]
    seconds = (settled[-1] - settled[0]) / 1000
    return {
        "guarantee": guarantee,
        "rides": count,
        "rides_per_second": round(len(settled) / seconds),
        "worker_cpu_seconds": round(
            after.children_user + after.children_system - before.children_user - before.children_system, 1
        ),
    }


@click.command()
@click.option("--trips", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--rides", "count", default=200_000, show_default=True)
@click.option("--runs", default=3, show_default=True)
def main(trips: Path, count: int, runs: int) -> None:
    """Print one JSON object a run."""
    logs.configure("warning", "auto")
    try:
        for _ in range(runs):
            for guarantee in ("exactly_once", "at_least_once"):
                click.echo(json.dumps(measure(trips, count, guarantee)))
    except BraidstreamError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
