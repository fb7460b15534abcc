"""Where a demo runs: the broker of the environment, or the embedded one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from braidstream.demo.show import Show
from braidstream.embedded import PARTITIONS, EmbeddedBroker, appear, environment_at, properties_at
from braidstream.pipelines import Pipeline
from braidstream.settings import Settings
from braidstream.streaming import clients, topics


@dataclass(frozen=True)
class Broker:
    """The settings of this process, and what workers need on top of its environment."""

    settings: Settings
    environment: Mapping[str, str]


@contextmanager
def open_broker(pipeline: Pipeline[Any], show: Show) -> Iterator[Broker]:
    """A broker with the pipeline's topics: that of `KAFKA_BOOTSTRAP_SERVERS`, or else an embedded one.

    Raises `SettingsError` when topics that are there are not as they have to be.
    """
    settings = Settings.load()
    if "bootstrap.servers" not in settings.kafka:
        with EmbeddedBroker() as embedded:
            yield _embedded(pipeline, settings, embedded.bootstrap_servers, show)
        return
    client = clients.admin(settings)
    if topics.is_embedded(topics.await_broker(client, settings)):
        yield _embedded(pipeline, settings, settings.bootstrap_servers, show)
        return
    wanted = topics.specs(pipeline, settings)
    topics.create(client, wanted, settings.replication_factor)
    topics.check(client, wanted, settings)
    show.line(f"broker: Kafka at {settings.bootstrap_servers}, exactly once unless PROCESSING_GUARANTEE says otherwise")
    yield Broker(settings, {})


def _embedded(pipeline: Pipeline[Any], settings: Settings, bootstrap_servers: str, show: Show) -> Broker:
    """The embedded broker at this address, of this process or of another, with the pipeline's topics."""
    kafka = {**settings.kafka, **properties_at(bootstrap_servers)}
    settings = settings.model_copy(update={"kafka": kafka, "partitions": PARTITIONS})
    producer: Any = clients.plain_producer(settings, settings.named("topics"))
    appear(producer, [spec.name for spec in topics.specs(pipeline, settings)])
    show.line("broker: librdkafka's embedded one: at least once, for trying out, keeps nothing")
    return Broker(settings, environment_at(bootstrap_servers))
