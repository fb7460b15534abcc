"""Notes when each ride's record can be read from topics: `python -m bench.observer`. Runs until SIGTERM.

What it writes is a numpy file with the monotonic clock's nanoseconds, a row a topic and a column a ride; the last
record of a ride counts, and 0 stands for none.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import click
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from bench.records import ride_number


@click.command()
@click.option("--bootstrap", required=True)
@click.option("--topic", "topics", multiple=True, required=True)
@click.option("--partitions", type=int, required=True)
@click.option("--rides", type=int, required=True, help="How many rides there are.")
@click.option("--seen", type=click.Path(path_type=Path), required=True, help="Where the times are written.")
def main(*, bootstrap: str, topics: tuple[str, ...], partitions: int, rides: int, seen: Path) -> None:
    """Wake for each record as soon as it is there, and take with it what else is there."""
    config = {"bootstrap.servers": bootstrap, "group.id": "observer", "enable.auto.commit": "false"}
    consumer = Consumer({**config, "isolation.level": "read_committed", "fetch.queue.backoff.ms": "10"})
    consumer.assign([TopicPartition(topic, n, OFFSET_BEGINNING) for topic in topics for n in range(partitions)])
    rows = {topic: row for row, topic in enumerate(topics)}
    times = np.zeros((len(topics), rides), dtype=np.int64)
    running = [True]
    signal.signal(signal.SIGTERM, lambda *_: running.clear())
    while running:
        messages = consumer.consume(1, 0.1)
        if messages:
            messages += consumer.consume(10_000, 0)
        now = time.monotonic_ns()
        for message in messages:
            key, topic = message.key(), message.topic()
            if isinstance(key, bytes) and topic is not None:
                times[rows[topic], ride_number(key)] = now
    consumer.close()
    np.save(seen, times)


if __name__ == "__main__":
    main()
