"""librdkafka's in-process broker: for trying things out with nothing installed but Python.

It keeps no transactions, loses what it holds when its process ends, and its logs are rings: a consumer that lags by
some hundred thousand records loses some without being told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from confluent_kafka import Producer

from braidstream.logs import client_logger

PARTITIONS = 4
"""Partitions of every topic of the embedded broker; topics appear on first use."""

_PROPERTIES = {"fetch.wait.max.ms": "10"}
"""It answers a fetch only when this time is over, whatever has come."""

_TIMEOUT = 10.0


def properties_at(bootstrap_servers: str) -> Mapping[str, str]:
    """The properties of clients of the embedded broker at this address."""
    return {"bootstrap.servers": bootstrap_servers, **_PROPERTIES}


def environment_at(bootstrap_servers: str) -> Mapping[str, str]:
    """The settings of programs that use the embedded broker at this address."""
    kafka = properties_at(bootstrap_servers)
    own = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in kafka.items()}
    return {**own, "PROCESSING_GUARANTEE": "at_least_once", "PARTITIONS": str(PARTITIONS)}


def appear(producer: Producer, topics: Sequence[str]) -> list[str]:
    """Make topics of an embedded broker: it has a topic from when a producer first asks for it.

    Returns the names of those that were missing.
    """
    there = producer.list_topics(timeout=_TIMEOUT).topics
    for topic in topics:
        producer.list_topics(topic, timeout=_TIMEOUT)
    return [topic for topic in topics if topic not in there]


class EmbeddedBroker:
    """A broker in this process, reached by others over TCP on localhost, for as long as the context is open."""

    def __init__(self) -> None:
        self._client: Any = None
        self.bootstrap_servers = ""

    def __enter__(self) -> Self:
        self._client = Producer({"test.mock.num.brokers": "1"}, logger=client_logger())
        broker = next(iter(self._client.list_topics(timeout=_TIMEOUT).brokers.values()))
        self.bootstrap_servers = f"{broker.host}:{broker.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._client = None

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings of programs that use it."""
        return environment_at(self.bootstrap_servers)
