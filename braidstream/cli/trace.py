"""`braidstream trace`: what became of one subject."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from datetime import UTC, datetime

import click
from rich.console import Console

from braidstream import logs
from braidstream.cli import letters, plugins, timeline_views
from braidstream.cli.reading import TopicReader
from braidstream.cli.records import Decoder, to_seconds
from braidstream.cli.search import Search
from braidstream.cli.timeline import timeline
from braidstream.errors import FatalError
from braidstream.registry import schemas_for
from braidstream.settings import ModelNames, Settings
from braidstream.streaming import clients


class _TraceSettings(Settings):
    expected_models: ModelNames = ()


@click.command()
@click.argument("subject_id", metavar="SUBJECT")
@click.option(
    "--since",
    type=letters.time,
    metavar="TIME",
    help="Read everything from this time on: ISO 8601 (UTC), or 2h ago. Else the last event and what came of it soon.",
)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
@plugins.pipeline_option
def trace(*, subject_id: str, since: datetime | None, is_json: bool, pipeline_name: str | None) -> None:
    """Show what became of one subject: its event, predictions, decisions and dead letters in one timeline.

    SUBJECT is the key of the event. For each record there is when it was written and how long
    after the event, where it is (topic partition:offset), and what it says. Then comes what is missing.

    The event is looked for in the partition of its key, from the end backwards, and the other topics are read from its
    time on: for two minutes, for an hour when there is no complete decision by then, to the end when there is none.
    --since reads from that time to the end, which shows repeats and what other versions of a model predicted later.
    Exits with 1 when there is nothing.

    \b
    Examples:
      braidstream trace 00000003-16cd-8011-94d2-0a5ed6c9885d
      braidstream trace 00000003-16cd-8011-94d2-0a5ed6c9885d --since 2h
      braidstream trace video-17 --pipeline moderation.pipeline:MODERATION
    """
    settings = _TraceSettings.load()
    logs.configure(settings.log_level, settings.log_format)
    pipeline = plugins.pipeline(pipeline_name)
    decode = Decoder(schemas_for(settings, [topic.event_type for topic in pipeline.topics]))
    now = datetime.now(UTC)
    name = settings.named(pipeline.subjects.name)
    with (
        closing(clients.stretch_reader(settings, settings.named("trace"))) as consumer,
        Console(stderr=True).status("asking the broker") as status,
    ):
        reader = TopicReader(consumer, settings, name)
        search = Search(reader, settings, pipeline, decode=decode, subject_id=subject_id, tell=status.update)
        found = search.run(since, now)
        if not found.sightings:
            since = since or search.oldest(found.home)
            begin = f"from {to_seconds(since)} UTC on" if since is not None else "which is empty there"
            raise FatalError(
                f"{subject_id} is not found: no record has this key in {name} (all {len(reader.numbers)} partitions), "
                f"{begin}, nor in partition {found.home} of {settings.named(pipeline.decisions.name)}"
            )
        told = timeline(pipeline, subject_id, found, search.states(found), settings.expected_models)
    if is_json:
        click.echo(json.dumps(timeline_views.as_object(told)))
        return
    for line in timeline_views.lines(told, pipeline, settings, now, shutil.get_terminal_size().columns):
        click.echo(line)
