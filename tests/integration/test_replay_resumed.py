"""`python -m producer --resume` on real Kafka: killed, gone on with, and refused on a topic that was made again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from producer.resume import read_position
from producer.trips import read_trips
from rides.pipeline import RIDES

pytestmark = pytest.mark.docker

PARTITIONS = 3
DEADLINE = 60.0


class RideTopic:
    """The test's own `ride_started`."""

    def __init__(self, servers: str, prefix: str) -> None:
        self.name = f"{prefix}{RIDES.subjects.name}"
        self._servers = servers
        self._admin = AdminClient({"bootstrap.servers": servers})

    def create(self) -> None:
        """Make it, once one of its name that was deleted is gone."""
        end = time.monotonic() + DEADLINE
        while self.name in self._admin.list_topics(timeout=10).topics:
            assert time.monotonic() < end
        self._admin.create_topics([NewTopic(self.name, PARTITIONS, 1)])[self.name].result(20)

    def delete(self) -> None:
        self._admin.delete_topics([self.name])[self.name].result(20)

    def keys(self) -> list[bytes | None]:
        """The keys of all records."""
        reader = Consumer({"bootstrap.servers": self._servers, "group.id": self.name, "auto.offset.reset": "earliest"})
        partitions = [TopicPartition(self.name, number, 0) for number in range(PARTITIONS)]
        reader.assign(partitions)
        total = sum(reader.get_watermark_offsets(partition, timeout=10)[1] for partition in partitions)
        keys: list[bytes | None] = []
        end = time.monotonic() + DEADLINE
        while len(keys) < total:
            assert time.monotonic() < end
            keys += [message.key() for message in reader.consume(total - len(keys), 1.0)]
        reader.close()
        return keys


def when_noted(path: Path) -> None:
    """Return when some rides are noted to be acknowledged."""
    end = time.monotonic() + DEADLINE
    while (position := read_position(path)) is None or not position.acknowledged:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_killed_replay_goes_on_in_its_own_topic_alone(
    kafka: str, topic_prefix: str, sample: Path, tmp_path: Path
) -> None:
    topic = RideTopic(kafka, topic_prefix)
    topic.create()
    own = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "TOPIC_PREFIX": topic_prefix, "PARTITIONS": str(PARTITIONS)}
    environment = {**os.environ, **own, "LOG_LEVEL": "error"}
    command = [sys.executable, "-m", "producer", str(sample), "--resume", str(tmp_path / "replay.json")]
    with subprocess.Popen([*command, "--rate", "1000"], env=environment) as process:
        when_noted(tmp_path / "replay.json")
        process.kill()

    done = subprocess.run(command, env=environment, timeout=60, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("Going on after ")
    keys = topic.keys()
    assert {*keys} == {ride_id.encode() for ride_id in read_trips([sample]).rides["ride_id"]}
    assert len(keys) - len({*keys}) < 5_000

    topic.delete()
    topic.create()
    again = subprocess.run(command, env=environment, timeout=60, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert f"is of a replay that goes to {topic.name} (id " in again.stderr
