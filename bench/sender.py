"""Sends each ride when it is due, and notes when: `python -m bench.sender`.

The rides come from a file of lines, each a key and a value in hexadecimal. What it writes is a numpy file with the
monotonic clock's nanoseconds of each sending, in the order of the file.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
from confluent_kafka import Producer


@click.command()
@click.option("--bootstrap", required=True)
@click.option("--topic", required=True)
@click.option("--partitions", type=int, required=True)
@click.option("--rate", type=float, required=True, help="Rides a second.")
@click.option("--rides", type=click.Path(path_type=Path), required=True)
@click.option("--sent", type=click.Path(path_type=Path), required=True, help="Where the times are written.")
def main(*, bootstrap: str, topic: str, partitions: int, rate: float, rides: Path, sent: Path) -> None:
    """Send rides at a rate, never two at once because one was late by less than its turn."""
    lines = [line.split() for line in rides.read_text().splitlines()]
    records = [(key.encode(), bytes.fromhex(value)) for key, value in lines]
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": "0",
            # Requests without a limit queue up at the broker; those that wait here instead go together.
            "max.in.flight": "5",
            "delivery.report.only.error": True,
        }
    )
    producer.list_topics(topic, timeout=10)
    times = np.zeros(len(records), dtype=np.int64)
    start = time.monotonic()
    for number, (key, value) in enumerate(records):
        due = start + number / rate
        while (left := due - time.monotonic()) > 0:
            time.sleep(left)
        times[number] = time.monotonic_ns()
        producer.produce(topic, value, key, number % partitions)
        producer.poll(0)
    if left_over := producer.flush(30):
        raise click.ClickException(f"{left_over} rides were not taken")
    np.save(sent, times)


if __name__ == "__main__":
    main()
