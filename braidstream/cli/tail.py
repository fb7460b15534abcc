"""`braidstream tail`: the decoded records of a topic."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any

import click
from confluent_kafka import KafkaException, Message, TopicPartition

from braidstream import logs
from braidstream.cli import plugins
from braidstream.cli.records import Decoder, Record, as_json, as_line
from braidstream.errors import FatalError, RetriableError, SettingsError, UnavailableError
from braidstream.registry import schemas_for
from braidstream.settings import Settings
from braidstream.streaming import clients, topics
from braidstream.streaming.ports import Partition

_AT_ONCE = 500
_WAIT = 0.2


@click.command()
@click.argument("topic")
@click.option("--from-beginning", is_flag=True, help="Read what is there already; else only what comes from now on.")
@click.option("--to-end", is_flag=True, help="Read from the beginning and stop at the end as it is now.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after N records.")
@click.option("--key", metavar="KEY", help="Show only the records with this key.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object a line.")
@plugins.pipeline_option
def tail(
    *,
    topic: str,
    from_beginning: bool,
    to_end: bool,
    limit: int | None,
    key: str | None,
    is_json: bool,
    pipeline_name: str | None,
) -> None:
    """Show the decoded records of TOPIC as they come, of every partition, committed ones only.

    TOPIC is the pipeline's name for it; TOPIC_PREFIX is put before it. What cannot be decoded is shown with the
    reason and its bytes. In a pipe each record is one line: time, partition/offset, key, value and headers, separated
    by tabs. Records of one partition come in order. Ctrl-C stops.

    \b
    Examples:
      braidstream tail decisions
      braidstream tail predictions --from-beginning --limit 5
      braidstream tail decisions --to-end --key 6f1c2a44-6f0e-5a3c-9d3b-0a4f2b8f7c11
      braidstream tail dead_letters --to-end --json | jq .headers
    """
    settings = Settings.load()
    logs.configure(settings.log_level, settings.log_format)
    pipeline = plugins.pipeline(pipeline_name)
    decode = Decoder(schemas_for(settings, [topic.event_type for topic in pipeline.topics]))
    show = _as_json if is_json else _for_people()
    with _sigterm_ends(), closing(clients.reader(settings, settings.named("tail"))) as consumer:
        messages = _messages(consumer, settings, topic, from_beginning=from_beginning or to_end, to_end=to_end)
        chosen = (m for m in messages if key is None or m.key() == os.fsencode(key))
        for message in islice(chosen, limit):
            show(decode(message))


def _messages(
    consumer: Any, settings: Settings, topic: str, *, from_beginning: bool, to_end: bool
) -> Iterator[Message]:
    name = settings.named(topic)
    client = clients.admin(settings)
    found = topics.await_broker(client, settings).topics
    if name not in found:
        there = ", ".join(sorted(other for other in found if not other.startswith("__"))) or "none"
        raise SettingsError(f"there is no topic {name} at {settings.bootstrap_servers}; the topics are: {there}")
    ends = _ends(
        clients.BrokerLogEnds(lambda: clients.admin(settings)),
        name,
        sorted(found[name].partitions),
        settings.broker_timeout,
    )
    starts = {n: _beginning(consumer, name, n, settings) if from_beginning else end for n, end in ends.items()}
    if not to_end:
        click.echo(f"Following {name}; Ctrl-C stops.", err=True)
    return read(consumer, name, starts, ends if to_end else None, timeout=settings.broker_timeout)


def read(
    consumer: Any,
    topic: str,
    starts: Mapping[int, int],
    ends: Mapping[int, int] | None,
    *,
    timeout: float,
) -> Iterator[Message]:
    """The records of the partitions from their starts on; up to their ends, or for ever without them.

    The ends are high watermarks, which a reader of committed records reaches when the transactions before them are
    over. Raises `UnavailableError` when nothing moves for `timeout` seconds before an end.
    """
    consumer.assign([TopicPartition(topic, number, start) for number, start in starts.items()])
    positions = dict(starts)
    deadline = time.monotonic() + timeout
    while ends is None or (unread := [number for number, end in ends.items() if positions[number] < end]):
        for message in consumer.consume(_AT_ONCE, _WAIT):
            if (error := message.error()) is not None:
                if not error.retriable():
                    raise FatalError(f"{topic} cannot be read: {error.str()}")
            elif ends is None or message.offset() < ends[message.partition()]:
                yield message
        if ends is None:
            continue
        moved = _positions(consumer, topic, positions)
        if moved != positions:
            positions, deadline = moved, time.monotonic() + timeout
        elif time.monotonic() >= deadline:
            raise UnavailableError(
                f"partitions {unread} of {topic} were not read to their end: nothing came for {timeout:g} s "
                "(BROKER_TIMEOUT). Is the broker up, or does an open transaction hold readers back?"
            )


def _positions(consumer: Any, topic: str, before: Mapping[int, int]) -> dict[int, int]:
    found = consumer.position([TopicPartition(topic, number) for number in before])
    return {at.partition: max(at.offset, before[at.partition]) for at in found}


def _ends(asker: clients.BrokerLogEnds, topic: str, numbers: list[int], timeout: float) -> dict[int, int]:
    wanted = [Partition(topic, number) for number in numbers]
    answer = asker.ask(wanted)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if (ends := answer()) is not None:
                return {partition.number: end for partition, end in ends.items()}
        except RetriableError:
            answer = asker.ask(wanted)
        time.sleep(0.01)
    raise UnavailableError(f"the broker did not tell where {topic} ends within {timeout:g} s (BROKER_TIMEOUT)")


def _beginning(consumer: Any, topic: str, number: int, settings: Settings) -> int:
    try:
        low, _high = consumer.get_watermark_offsets(
            TopicPartition(topic, number), timeout=settings.broker_timeout, cached=False
        )
    except KafkaException as error:
        raise UnavailableError(f"the broker did not tell where {topic} begins: {error.args[0].str()}") from error
    return int(low)


def _as_json(record: Record) -> None:
    click.echo(json.dumps(as_json(record)))


def _for_people() -> Callable[[Record], None]:
    """A stream that reads like a table on a terminal, plain lines elsewhere."""
    if not sys.stdout.isatty():
        return lambda record: click.echo(as_line(record))
    from rich.console import Console

    from braidstream.cli.screen import Screen

    return Screen(Console(highlight=False)).show


@contextmanager
def _sigterm_ends() -> Iterator[None]:
    def leave(*_: object) -> None:
        sys.exit(0)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
