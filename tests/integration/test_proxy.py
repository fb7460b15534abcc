"""Connections to the broker are cut, swallowed and slowed down while workers run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.containers import Broker
from tests.integration.ride_pipeline import RidePipeline
from tests.integration.rig import LONGER_THAN_A_TRANSACTION, SOON, Rig
from tests.toxiproxy import Proxy

pytestmark = pytest.mark.docker

DOWN, UP = "no broker can be reached", "a broker answers again"
FEW = 40
"""Lines: one in two seconds of the outage and of what comes after it, and not one for each attempt."""


@pytest.fixture(scope="module")
def rig(
    broker: Broker, proxied_kafka: Proxy, models: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """The workers come by the proxy, the tests and the rides do not."""
    folder = tmp_path_factory.mktemp("proxy")
    with Rig(broker.address, models, sample, folder, by=proxied_kafka.address) as running:
        yield running


def outlived(rig: Rig, fault: AbstractContextManager[None]) -> None:
    """What is promised is kept, and soon again as fast as before."""
    with rig.traffic.flowing():
        rig.await_decisions(more=50)
        with fault:
            time.sleep(LONGER_THAN_A_TRANSACTION)
    rig.settle()
    assert rig.latency() < SOON
    rig.check()


def test_every_connection_is_cut_for_longer_than_a_transaction_may_last(rig: Rig, proxied_kafka: Proxy) -> None:
    before = rig.logs()
    outlived(rig, proxied_kafka.down())
    for worker, lines in rig.logs().items():
        told = [line for line in lines[len(before[worker]) :] if line["level"] != "info" or line["event"] == UP]
        of_outage = [(line["event"], line["at"]) for line in told if line["event"] in (DOWN, UP)]
        assert of_outage[:2] == [(DOWN, proxied_kafka.address), (UP, proxied_kafka.address)], worker
        assert len(told) <= FEW, told


@pytest.mark.long
def test_no_answer_comes_back_for_longer_than_a_transaction_may_last(rig: Rig, proxied_kafka: Proxy) -> None:
    """The broker does what it is asked to, and nobody hears of it."""
    outlived(rig, proxied_kafka.with_toxic("timeout", timeout=0))


@pytest.mark.long
def test_on_a_slow_network_decisions_take_longer_and_go_on(rig: Rig, proxied_kafka: Proxy) -> None:
    with proxied_kafka.with_toxic("latency", latency=200, jitter=100):
        with rig.traffic.flowing():
            rig.await_decisions(more=50)
        rig.settle()
    assert rig.latency() < SOON
    rig.check()


def test_a_worker_gives_up_after_the_limit(
    broker: Broker, proxied_kafka: Proxy, topic_prefix: str, models: Path, tmp_path: Path
) -> None:
    environment = {"KAFKA_BOOTSTRAP_SERVERS": broker.address, "TOPIC_PREFIX": topic_prefix}
    settings = {"KAFKA_BOOTSTRAP_SERVERS": proxied_kafka.address, "BROKER_TIMEOUT": "6"}
    with RidePipeline(environment, models, tmp_path) as pipeline:
        worker = pipeline.start("consumers.duration", **settings)
        pipeline.wait_until_started()
        with proxied_kafka.down():
            assert worker.wait(60) == 1
        assert f"no broker at {proxied_kafka.address} has answered for " in pipeline.logs()
