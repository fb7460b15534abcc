"""Where a demo runs: the broker of the environment, or the embedded one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from braidstream.demo.show import Show
from braidstream.embedded import EMBEDDED_PROPERTIES, PARTITIONS, EmbeddedBroker
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
    wanted = topics.specs(pipeline, settings)
    if "bootstrap.servers" in settings.kafka:
        client = clients.admin(settings)
        topics.await_broker(client, settings)
        topics.create(client, wanted, settings.replication_factor)
        topics.check(client, wanted, settings)
        show.line(
            f"broker: Kafka at {settings.bootstrap_servers}, exactly once unless PROCESSING_GUARANTEE says otherwise"
        )
        yield Broker(settings, {})
        return
    with EmbeddedBroker() as embedded:
        kafka = {**settings.kafka, "bootstrap.servers": embedded.bootstrap_servers, **EMBEDDED_PROPERTIES}
        settings = settings.model_copy(update={"kafka": kafka, "partitions": PARTITIONS})
        embedded.create([spec.name for spec in wanted])
        show.line("broker: librdkafka's embedded one, at least once; it is for trying out and keeps nothing")
        yield Broker(settings, embedded.environment)
