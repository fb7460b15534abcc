"""Runs every contract test on the fake broker, and on Kafka."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.brokers import Broker, Fake, Kafka


@pytest.fixture(params=["fake", pytest.param("kafka", marks=pytest.mark.docker)])
def broker(request: pytest.FixtureRequest, topic_prefix: str) -> Iterator[Broker]:
    """Either of the two."""
    if request.param == "fake":
        yield Fake()
        return
    kafka = Kafka(request.getfixturevalue("kafka"), topic_prefix)
    yield kafka
    kafka.close()
