"""A cluster of three brokers loses one after the other while workers run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from testcontainers.core.network import Network

from tests.containers import Broker, run_kafka_cluster
from tests.integration.rig import LONGER_THAN_A_TRANSACTION, SOON, Rig

pytestmark = [pytest.mark.docker, pytest.mark.long]

PATIENCE = 120.0


class Cluster:
    """Three brokers, to be lost one at a time."""

    def __init__(self, brokers: list[Broker]) -> None:
        self.brokers = brokers
        self.servers = ",".join(broker.address for broker in brokers)
        # What it says of brokers that are gone is no news.
        self._admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})

    def restart(self, broker: Broker) -> None:
        """It hands over what it leads, ends, and comes back."""
        broker.stop()
        broker.start()

    def kill(self, broker: Broker) -> None:
        """It is gone until the others have noticed, and comes back."""
        broker.kill()
        self._await(lambda: not self._is_whole(), "a replica that is missing")
        broker.start()

    def hang(self, broker: Broker) -> None:
        """It stands still for longer than a transaction may last, and until the others have noticed, and goes on."""
        with broker.hanging():
            time.sleep(LONGER_THAN_A_TRANSACTION)
            self._await(lambda: not self._is_whole(), "a replica that is missing")

    def await_whole(self) -> None:
        """Wait until every broker has every record again: without two of them nothing is acknowledged."""
        self._await(self._is_whole, "replicas that are in sync")

    def _is_whole(self) -> bool:
        try:
            topics = self._admin.list_topics(timeout=5).topics.values()
        except KafkaException:
            return False
        partitions = [partition for topic in topics for partition in topic.partitions.values()]
        return all(len(partition.isrs) == len(self.brokers) for partition in partitions)

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}"
            time.sleep(0.2)


@pytest.fixture
def cluster(network: Network) -> Iterator[Cluster]:
    with run_kafka_cluster(network) as brokers:
        yield Cluster(brokers)


def test_workers_outlive_each_broker(cluster: Cluster, models: Path, sample: Path, tmp_path: Path) -> None:
    with Rig(cluster.servers, models, sample, tmp_path) as rig:
        with rig.traffic.flowing(per_second=10):
            for broker, fault in zip(cluster.brokers, (cluster.restart, cluster.kill, cluster.hang), strict=True):
                rig.await_decisions(more=10)
                fault(broker)
                cluster.await_whole()
        rig.settle()
        assert rig.latency() < SOON
        rig.check()
