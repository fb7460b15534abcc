"""Records that are too large for their topic stop the worker, which names them; nothing is lost."""

from __future__ import annotations

import os
import re
import subprocess
from itertools import chain, islice
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from braidstream.streaming.dead_letters import raw_headers
from braidstream.streaming.topics import ROOM
from producer.trips import read_trips, rides
from rides.pipeline import RIDES
from tests.integration import wordy_policy
from tests.integration.ride_pipeline import RidePipeline
from tests.integration.traffic import Traffic

pytestmark = pytest.mark.docker

LARGE = 200_000
GUARANTEES = pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])


def limit(pipeline: RidePipeline, topic: str, largest: int) -> None:
    """Set the most bytes of a batch that a topic takes."""
    entry = ConfigEntry("max.message.bytes", str(largest), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, pipeline.settings.named(topic), incremental_configs=[entry])
    client = AdminClient({"bootstrap.servers": pipeline.environment["KAFKA_BOOTSTRAP_SERVERS"]})
    client.incremental_alter_configs([resource])[resource].result(20)


def send_poison(pipeline: RidePipeline) -> None:
    """A record that is no ride, that `ride_started` takes, and that cannot be compressed; in partition 2."""
    producer = Producer(
        {"bootstrap.servers": pipeline.environment["KAFKA_BOOTSTRAP_SERVERS"], "message.max.bytes": 2_000_000}
    )
    producer.produce(pipeline.settings.named(RIDES.subjects.name), os.urandom(LARGE), b"poison", partition=2)
    assert producer.flush(20) == 0


def end_of(worker: subprocess.Popen[bytes], pipeline: RidePipeline) -> str:
    """What the worker said before it ended, with exit code 1 and no traceback."""
    assert worker.wait(60) == 1
    said = pipeline.logs()
    assert "Traceback" not in said
    return said


@GUARANTEES
def test_a_dead_letter_that_is_too_large_stops_the_worker_and_is_written_when_there_is_room(
    pipeline: RidePipeline, sample: Path, guarantee: str
) -> None:
    settings = {"PROCESSING_GUARANTEE": guarantee, "KAFKA_BATCH_SIZE": str(LARGE // 2)}
    traffic = Traffic(rides(read_trips([sample]).rides), [pipeline.settings])
    worker = pipeline.start("consumers.duration", **settings)
    pipeline.wait_until_started()
    limit(pipeline, RIDES.dead_letters, LARGE)
    traffic.send(20)
    send_poison(pipeline)
    traffic.send(20)
    said = end_of(worker, pipeline)
    source = rf"{pipeline.settings.named(RIDES.subjects.name)} \[2\] offset \d+"
    name = pipeline.settings.named(RIDES.dead_letters)
    assert re.search(rf"its topic {name}: the one with the key b'poison', made from {source}, was refused", said)
    (needed,) = re.findall(rf"Raise max\.message\.bytes of {name} to (\d+) or more", said)

    refused = pipeline.run_with(settings, "consumers.duration")
    assert refused.returncode == 2, refused.stderr
    (least,) = re.findall(rf"topic {name} has max\.message\.bytes={LARGE}, .* raise it to (\d+)", refused.stderr)
    assert int(least) == 1_048_588 + ROOM
    assert int(needed) < int(least)

    limit(pipeline, RIDES.dead_letters, int(least))
    pipeline.start("consumers.duration", **settings)
    pipeline.wait_for(lambda: len(pipeline.predictions()) == 40, "predictions of all rides")
    pipeline.wait_for(lambda: len(pipeline.records(RIDES.dead_letters)) > 0, "the dead letter")
    letters = pipeline.records(RIDES.dead_letters)
    assert {letter.key() for letter in letters} == {b"poison"}
    assert [len(letter.value() or b"") for letter in letters] == [LARGE] * len(letters)
    if guarantee == "exactly_once":
        assert len(letters) == 1
        assert {len(found) for found in pipeline.predictions().values()} == {1}
    assert b"__connect.errors.exception.message" in {name.encode() for name, _ in raw_headers(letters[0])}


@pytest.mark.parametrize(
    ("guarantee", "decider", "topic", "lowered"),
    [
        ("exactly_once", "tests.integration.wordy_policy", RIDES.decisions.name, None),
        ("at_least_once", "decision_service", RIDES.decision_state.name, 100),
    ],
    ids=["decision", "state"],
)
def test_what_is_too_large_to_be_published_stops_the_worker_and_is_published_when_there_is_room(  # noqa: PLR0917
    pipeline: RidePipeline, sample: Path, guarantee: str, decider: str, topic: str, lowered: int | None
) -> None:
    settings = {"PROCESSING_GUARANTEE": guarantee, "EXPECTED_MODELS": "duration"}
    source = rides(read_trips([sample]).rides)
    wordy = next(source).model_copy(update={"pickup_zone": wordy_policy.ZONE})
    traffic = Traffic(chain(islice(source, 10), [wordy], source), [pipeline.settings])
    pipeline.start("consumers.duration", **settings)
    worker = pipeline.start(decider, **settings)
    pipeline.wait_until_started()
    if lowered is not None:
        limit(pipeline, topic, lowered)
    traffic.send(20)
    said = end_of(worker, pipeline)
    name = pipeline.settings.named(topic)
    ((size, key, least),) = re.findall(
        rf"a record of (\d+) bytes is too large for its topic {name}: the one with the key b'(.*?)'.* was refused, and "
        rf"nothing of its batch is committed. Raise max\.message\.bytes of {name} to (\d+) or more",
        said,
    )
    assert key in traffic.sent
    assert int(least) == int(size) + 1024

    limit(pipeline, topic, 5_000_000)
    pipeline.start(decider, **settings)
    pipeline.wait_for(lambda: pipeline.decided() == 20, "decisions of all rides")
    decisions = pipeline.decisions()
    assert decisions.keys() == set(traffic.sent)
    assert guarantee == "at_least_once" or {len(found) for found in decisions.values()} == {1}
    assert all({decision.revision for decision in found} == {0} for found in decisions.values())
    assert pipeline.records(RIDES.dead_letters) == []
