"""`braidstream topics`: create what a pipeline needs on a broker and in the registry, or check that it is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from confluent_kafka.admin import AdminClient

from braidstream import logs
from braidstream.cli import plugins
from braidstream.embedded import PARTITIONS, appear
from braidstream.errors import SettingsError
from braidstream.pipelines import Pipeline
from braidstream.registry import schemas_for
from braidstream.settings import Settings
from braidstream.streaming import clients
from braidstream.streaming import topics as kafka_topics
from braidstream.streaming.topics import TopicSpec


@click.group()
def topics() -> None:
    """Create or check the topics of a pipeline."""


@topics.command()
@plugins.pipeline_option
def create(pipeline_name: str | None) -> None:
    """Create the topics that are missing, check the others, and register the schemas.

    Safe to repeat: what is there already is left as it is. Every topic gets PARTITIONS partitions and
    REPLICATION_FACTOR replicas. Schemas are registered where SCHEMA_REGISTRY_URL is set. Waits up to BROKER_TIMEOUT
    seconds for the broker and the registry.

    \b
    Examples:
      KAFKA_BOOTSTRAP_SERVERS=localhost:9092 braidstream topics create
      PARTITIONS=12 REPLICATION_FACTOR=3 braidstream topics create
    """
    pipeline, settings, client, is_embedded = _connect(pipeline_name)
    wanted = _wanted(pipeline, settings, is_embedded)
    if is_embedded:
        producer: Any = clients.plain_producer(settings, settings.named("topics"))
        created = appear(producer, [spec.name for spec in wanted])
    else:
        created = kafka_topics.create(client, wanted, settings.replication_factor)
    kafka_topics.check(client, wanted, settings)
    click.echo(_created(created, wanted))
    if settings.schema_registry_url is not None:
        click.echo(_register_schemas(pipeline, settings))


@topics.command()
@plugins.pipeline_option
def check(pipeline_name: str | None) -> None:
    """Check that every topic is there, with its partitions and settings. Changes nothing.

    Exits with 0 when all is well, and with 2 after naming what is wrong.

    \b
    Example:
      KAFKA_BOOTSTRAP_SERVERS=localhost:9092 braidstream topics check
    """
    pipeline, settings, client, is_embedded = _connect(pipeline_name)
    wanted = _wanted(pipeline, settings, is_embedded)
    if problems := _problems(client, wanted, settings):
        raise SettingsError("\n       ".join(problems))
    click.echo(f"{_names(wanted)}: as they have to be, with {wanted[0].partitions} partitions each.")


def _connect(pipeline_name: str | None) -> tuple[Pipeline[Any], Settings, AdminClient, bool]:
    settings = Settings.load()
    logs.configure(settings.log_level, settings.log_format)
    pipeline = plugins.pipeline(pipeline_name)
    client = clients.admin(settings)
    return pipeline, settings, client, kafka_topics.is_embedded(kafka_topics.await_broker(client, settings))


def _wanted(pipeline: Pipeline[Any], settings: Settings, is_embedded: bool) -> list[TopicSpec]:
    """The topics of the pipeline. The embedded broker has its own number of partitions, and no settings of topics."""
    wanted = kafka_topics.specs(pipeline, settings)
    return [TopicSpec(spec.name, PARTITIONS, {}) for spec in wanted] if is_embedded else wanted


def _created(created: Sequence[str], wanted: Sequence[TopicSpec]) -> str:
    there = [spec for spec in wanted if spec.name not in created]
    each = " each" if len(created) > 1 else ""
    parts = [f"Created {', '.join(created)} with {wanted[0].partitions} partitions{each}."] if created else []
    parts += [f"{_names(there)}: there already."] if there else []
    return "\n".join(parts)


def _register_schemas(pipeline: Pipeline[Any], settings: Settings) -> str:
    schemas = schemas_for(settings, [topic.event_type for topic in pipeline.topics])
    subjects = {f"{settings.named(topic.name)}-value": topic.event_type for topic in pipeline.topics}
    ids = {subject: schemas.id_of(event_type, subject) for subject, event_type in subjects.items()}
    return f"Registered schemas: {', '.join(f'{subject} has id {number}' for subject, number in ids.items())}."


def _problems(client: AdminClient, wanted: Sequence[TopicSpec], settings: Settings) -> list[str]:
    """What is wrong, a sentence for each topic, without waiting for topics that are missing."""
    there = kafka_topics.await_broker(client, settings).topics
    problems = []
    for spec in wanted:
        if spec.name not in there:
            problems.append(f"topic {spec.name} is missing: create it with `braidstream topics create`")
            continue
        try:
            kafka_topics.check(client, [spec], settings)
        except SettingsError as error:
            problems.append(str(error))
    if not problems:
        try:
            kafka_topics.check(client, wanted, settings)
        except SettingsError as error:
            problems.append(str(error))
    return problems


def _names(wanted: Sequence[TopicSpec]) -> str:
    return ", ".join(spec.name for spec in wanted)
