"""librdkafka's in-process broker: for trying things out with nothing installed but Python.

It keeps no transactions, loses what it holds when its process ends, and its logs are rings: a consumer that lags by
some hundred thousand records loses some without being told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from confluent_kafka import Producer

from braidstream.logs import client_logger

PARTITIONS = 4
"""Partitions of every topic of the embedded broker; topics appear on first use."""

EMBEDDED_PROPERTIES = {"fetch.wait.max.ms": "10"}
"""What its clients need to be set to: it answers a fetch only when this time is over, whatever has come."""


class EmbeddedBroker:
    """A broker in this process, reached by others over TCP on localhost, for as long as the context is open."""

    def __init__(self) -> None:
        self._client: Any = None
        self.bootstrap_servers = ""

    def __enter__(self) -> Self:
        self._client = Producer({"test.mock.num.brokers": "1"}, logger=client_logger())
        broker = next(iter(self._client.list_topics(timeout=10).brokers.values()))
        self.bootstrap_servers = f"{broker.host}:{broker.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._client = None

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings of programs that use it."""
        kafka = {"bootstrap.servers": self.bootstrap_servers, **EMBEDDED_PROPERTIES}
        own = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in kafka.items()}
        return {**own, "PROCESSING_GUARANTEE": "at_least_once", "PARTITIONS": str(PARTITIONS)}

    def create(self, topics: list[str]) -> None:
        """Make the topics appear."""
        for topic in topics:
            self._client.list_topics(topic, timeout=10)
