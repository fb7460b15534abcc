"""Records that were deleted before a worker has read them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from testcontainers.core.container import DockerContainer

from producer.trips import read_trips, rides
from rides.pipeline import RIDES
from tests.integration.ride_pipeline import RidePipeline
from tests.integration.traffic import Traffic

pytestmark = pytest.mark.docker


def delete_before(pipeline: RidePipeline, offsets: dict[int, int]) -> None:
    """Delete the records of partitions of `ride_started` that come before these offsets, as retention does."""
    topic = pipeline.settings.named(RIDES.subjects.name)
    admin = AdminClient({"bootstrap.servers": pipeline.environment["KAFKA_BOOTSTRAP_SERVERS"]})
    before = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
    for future in admin.delete_records(before).values():
        future.result(20)


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_a_worker_stops_at_a_gap_and_goes_on_after_the_command_that_it_names(
    pipeline: RidePipeline, sample: Path, kafka_container: DockerContainer, guarantee: str
) -> None:
    traffic = Traffic(rides(read_trips([sample]).rides), [pipeline.settings])
    worker = pipeline.start("consumers.duration", PROCESSING_GUARANTEE=guarantee)
    traffic.send(120)
    pipeline.wait_for(lambda: len(pipeline.predictions()) == 120, "predictions")
    pipeline.stop(worker)
    read = {number: len(of_partition(pipeline, number)) for number in (1, 4)}
    traffic.send(120)
    delete_before(pipeline, {number: offset + 3 for number, offset in read.items()})
    left = {(record.key() or b"").decode() for record in pipeline.records(RIDES.subjects.name)}

    stopped = pipeline.run_with({"PROCESSING_GUARANTEE": guarantee}, "consumers.duration")
    topic = pipeline.settings.named(RIDES.subjects.name)
    assert stopped.returncode == 1, stopped.stderr
    for number, offset in read.items():
        assert f"{topic} [{number}] offsets {offset} to {offset + 2}" in stopped.stderr
    (command,) = re.findall(r"`(kafka-consumer-groups\.sh [^`]*)`", stopped.stderr)
    assert f"--group {pipeline.settings.named('duration')} --topic {topic}:1,4 " in command

    code, output = kafka_container.get_wrapped_container().exec_run(
        ["/opt/kafka/bin/" + command.split()[0], *shlex.split(command)[1:]]
    )
    assert code == 0, output
    pipeline.start("consumers.duration", PROCESSING_GUARANTEE=guarantee)
    everything = {ride for ride, _ in pipeline.predictions()} | left
    pipeline.wait_for(lambda: {ride for ride, _ in pipeline.predictions()} == everything, "the rides that are left")
    assert {len(found) for found in pipeline.predictions().values()} == {1}


def of_partition(pipeline: RidePipeline, number: int) -> list[object]:
    return [record for record in pipeline.records(RIDES.subjects.name) if record.partition() == number]
