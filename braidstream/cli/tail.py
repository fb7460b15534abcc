"""`braidstream tail`: the decoded records of a topic."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from itertools import islice

import click
from confluent_kafka import Message

from braidstream import logs
from braidstream.cli import completion, plugins
from braidstream.cli.errors import sigterm_ends
from braidstream.cli.reading import TopicReader
from braidstream.cli.records import Decoder, Record, as_json, as_line, printable
from braidstream.registry import schemas_for
from braidstream.settings import Settings
from braidstream.streaming import clients


@click.command()
@click.argument("topic", shell_complete=completion.topics)
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

    TOPIC is the pipeline's name for it; TOPIC_PREFIX is put before it. Where several pipelines are installed, it also
    says which is meant, unless --pipeline does. What cannot be decoded is shown with the
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
    pipeline = plugins.pipeline_with(topic, pipeline_name)
    decode = Decoder(schemas_for(settings, [topic.event_type for topic in pipeline.topics]))
    show = _as_json if is_json else _for_people()
    ending = nullcontext() if to_end else sigterm_ends()
    with ending, closing(clients.reader(settings, settings.named("tail"))) as consumer:
        reader = TopicReader(consumer, settings, settings.named(topic))
        messages = _messages(reader, from_beginning=from_beginning or to_end, to_end=to_end)
        chosen = (m for m in messages if key is None or m.key() == os.fsencode(key))
        is_empty = True
        for message in islice(chosen, limit):
            is_empty = False
            show(decode(message))
    if to_end and is_empty:
        which = "" if key is None else f" with the key {printable(key)}"
        click.echo(f"{reader.name} has no record{which}.", err=True)


def _messages(reader: TopicReader, *, from_beginning: bool, to_end: bool) -> Iterator[Message]:
    ends = reader.ends(reader.numbers)
    starts = reader.starts(reader.numbers) if from_beginning else ends
    if not to_end:
        click.echo(f"Following {reader.name}; Ctrl-C stops.", err=True)
    return reader.read(starts, ends if to_end else None)


def _as_json(record: Record) -> None:
    click.echo(json.dumps(as_json(record)))


def _for_people() -> Callable[[Record], None]:
    """A stream that reads like a table on a terminal, plain lines elsewhere."""
    if not sys.stdout.isatty():
        return lambda record: click.echo(as_line(record))
    from rich.console import Console

    from braidstream.cli.screen import Screen

    return Screen(Console(highlight=False)).show
