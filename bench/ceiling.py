"""The ceiling: consume, produce the same bytes, commit, as tightly as the client allows. Runs until SIGTERM.

The clients are tuned as the workers' are. No callbacks; one batch in flight, which is waited for.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import click
from confluent_kafka import Consumer, Producer, TopicPartition

from braidstream.streaming.clients import FETCH, PRODUCER, TRANSACTION

_CONSUMER = {
    **FETCH,
    "isolation.level": "read_committed",
    "auto.offset.reset": "earliest",
    "enable.auto.commit": "false",
    "partition.assignment.strategy": "cooperative-sticky",
}


@click.command()
@click.option("--bootstrap", required=True)
@click.option("--input", "inputs", multiple=True, required=True)
@click.option("--output", required=True)
@click.option("--group", required=True)
@click.option("--guarantee", type=click.Choice(["exactly_once", "at_least_once"]), required=True)
@click.option("--batch", type=click.IntRange(min=1), required=True, help="Most records taken at once.")
def main(*, bootstrap: str, inputs: tuple[str, ...], output: str, group: str, guarantee: str, batch: int) -> None:
    """Copy records from topics to a topic, to the partition number that each comes from."""
    servers = {"bootstrap.servers": bootstrap}
    consumer = Consumer({**_CONSUMER, **servers, "group.id": group})
    transaction = {**TRANSACTION, "transactional.id": f"{group}-{os.getpid()}"} if guarantee == "exactly_once" else {}
    producer = Producer({**PRODUCER, **servers, **transaction})
    copy = _copy_in_transactions if transaction else _copy
    running = [True]
    signal.signal(signal.SIGTERM, lambda *_: running.clear())
    consumer.subscribe(list(inputs))
    if transaction:
        producer.init_transactions(30)
    while running:
        if messages := consumer.consume(batch, 0.1):
            copy(consumer, producer, messages, output)
    consumer.close()


def _copy(consumer: Consumer, producer: Producer, messages: list[Any], output: str) -> None:
    _produce(producer, messages, output)
    producer.flush()
    consumer.commit(offsets=_positions(consumer), asynchronous=True)


def _copy_in_transactions(consumer: Consumer, producer: Producer, messages: list[Any], output: str) -> None:
    producer.begin_transaction()
    _produce(producer, messages, output)
    producer.send_offsets_to_transaction(_positions(consumer), consumer.consumer_group_metadata())
    producer.commit_transaction()


def _positions(consumer: Consumer) -> list[TopicPartition]:
    return [at for at in consumer.position(consumer.assignment()) if at.offset >= 0]


def _produce(producer: Producer, messages: list[Any], output: str) -> None:
    for message in messages:
        producer.produce(output, message.value(), message.key(), message.partition())


if __name__ == "__main__":
    main()
