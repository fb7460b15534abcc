"""The producer: from a file of trips to acknowledged events."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from bench.measurements import Figures, Measurement
from bench.setting import Setting
from braidstream.errors import FatalError
from producer.sample import write_sample
from rides.pipeline import RIDES

PART = "producer"

_SAID = re.compile(r"([\d,]+) rides sent, ([\d,]+) acknowledged,.* ([\d,]+) rides a second")


def full(setting: Setting) -> Iterator[Measurement]:
    """`python -m producer FILE`, as fast as the broker takes it."""
    trips = _trips(setting)
    for run in range(setting.runs):
        yield Measurement(PART, "python -m producer FILE", run, _send(setting, trips))


def _trips(setting: Setting) -> Path:
    """A file of as many trips as rides are asked for: the month's, again and again, in another order each time."""
    path = setting.scratch / "trips_2023-02.parquet"
    if setting.trips is None:
        write_sample(path, setting.rides, seed=1, month="2023-02")
        return path
    month = pl.read_parquet(setting.trips)
    copies = -(-setting.rides // month.height)
    shuffled = [month.sample(fraction=1, shuffle=True, seed=copy) for copy in range(copies)]
    path = setting.scratch / setting.trips.name
    pl.concat(shuffled).head(setting.rides).write_parquet(path)
    return path


def _send(setting: Setting, trips: Path) -> Figures:
    with setting.arena() as arena:
        environ = {"KAFKA_BOOTSTRAP_SERVERS": setting.broker, "TOPIC_PREFIX": arena.prefix}
        environ |= {"PARTITIONS": str(setting.partitions)}
        started = time.monotonic()
        with setting.start([sys.executable, "-m", "producer", str(trips)], environ, "producer") as child:
            output, cpu_seconds, peak = child.wait(600)
        wall = time.monotonic() - started
        numbers, stamps = arena.read(arena.named(RIDES.subjects.name))
    said = _SAID.search(output)
    if said is None:
        raise FatalError(f"the producer did not say what it sent: {output[-500:]}")
    sent, acknowledged, printed = (int(number.replace(",", "")) for number in said.groups())
    if not sent == acknowledged == len(numbers) == len(np.unique(numbers)):
        raise FatalError(f"{len(numbers):,} events are in the topic: {said[0]}")
    return {
        "records_per_s": sent * 1000 / (int(stamps.max()) - int(stamps.min())),
        "printed_per_s": printed,
        "cpu_us": cpu_seconds / sent * 1e6,
        "peak_mb": peak,
        "wall_s": wall,
    }
