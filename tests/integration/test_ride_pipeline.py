"""The whole pipeline on real Kafka, in processes of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from braidstream.writer import open_writer
from producer.trips import read_trips, rides
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.integration.ride_pipeline import MODELS, RidePipeline
from tests.real_trips import real_month

pytestmark = pytest.mark.docker

WORKERS = ("consumers.duration", "consumers.tip", "decision_service")

CONFLUENT_ONLY = """
import json, sys, warnings
warnings.simplefilter("ignore")
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

servers, registry, topic = sys.argv[1:]
deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
consumer = Consumer({"bootstrap.servers": servers, "group.id": "reader", "auto.offset.reset": "earliest"})
consumer.assign([TopicPartition(topic, 0, 0)])
message = consumer.poll(30)
value = deserialize(message.value(), SerializationContext(topic, MessageField.VALUE))
print(json.dumps({"key": message.key().decode(), **value}, default=str))
consumer.close()
"""


def some_rides(sample: Path, count: int) -> list[RideStarted]:
    return list(rides(read_trips([sample]).rides.head(count)))


def send(pipeline: RidePipeline, events: list[RideStarted]) -> None:
    with open_writer(RIDES.subjects, pipeline.settings) as writer:
        for event in events:
            writer.send(event)


@pytest.fixture
def with_registry(kafka: str, registry: str, topic_prefix: str, models: Path, tmp_path: Path) -> Iterator[RidePipeline]:
    environment = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "TOPIC_PREFIX": topic_prefix, "SCHEMA_REGISTRY_URL": registry}
    with RidePipeline(environment, models, tmp_path) as started:
        yield started


def test_a_real_month_becomes_predictions_and_decisions(with_registry: RidePipeline) -> None:
    pipeline = with_registry
    for module in WORKERS:
        pipeline.start(module)
    month = real_month("2023-02")
    replay = pipeline.run("producer", str(month), "--limit", "5000")
    assert replay.returncode == 0, replay.stderr
    pipeline.wait_for(lambda: pipeline.decided() >= 5000, "5,000 decisions")
    pipeline.assert_each_ride_once(read_trips([month]).rides["ride_id"].head(5000).to_list())

    prediction = pipeline.records(RIDES.predictions.name)[0]
    assert dict(prediction.headers() or []).keys() == {"source.topic", "source.partition", "source.offset"}
    by_confluent = subprocess.run(
        [
            *(sys.executable, "-c", CONFLUENT_ONLY, pipeline.environment["KAFKA_BOOTSTRAP_SERVERS"]),
            *(pipeline.environment["SCHEMA_REGISTRY_URL"], pipeline.settings.named(RIDES.predictions.name)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert by_confluent.returncode == 0, by_confluent.stderr
    read = json.loads(by_confluent.stdout)
    assert read["key"] == read["subject_id"]
    assert read["model"] in MODELS
    assert read["prediction_id"] in {p.prediction_id for found in pipeline.predictions().values() for p in found}


@pytest.mark.long
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_workers_joining_and_leaving_under_load(pipeline: RidePipeline, sample: Path, protocol: str) -> None:
    """Three workers of each model and two decision services, one after the other leaving and coming back."""
    settings = {"KAFKA_GROUP_PROTOCOL": protocol}
    wanted = ("consumers.duration",) * 3 + ("consumers.tip",) * 3 + ("decision_service",) * 2
    running = [(module, pipeline.start(module, **settings)) for module in wanted]
    events = some_rides(sample, 12_000)
    with open_writer(RIDES.subjects, pipeline.settings) as writer:
        for turn, start in enumerate(range(0, len(events), 1500)):
            for event in events[start : start + 1500]:
                writer.send(event)
            writer.flush()
            pipeline.wait_until_started()
            # One that leaves and comes back each time; a decision service every third time.
            chosen = len(running) - 1 - turn % 2 if turn % 3 == 2 else turn % 6
            module, process = running[chosen]
            pipeline.stop(process)
            running[chosen] = (module, pipeline.start(module, **settings))
    pipeline.wait_for(lambda: pipeline.decided() >= len(events), "every decision")
    pipeline.assert_each_ride_once([event.ride_id for event in events])


def test_killed_workers_lose_nothing_and_do_nothing_twice(pipeline: RidePipeline, sample: Path) -> None:
    running = {module: pipeline.start(module) for module in WORKERS}
    events = some_rides(sample, 9_000)
    for start, module in zip(range(0, 9_000, 3_000), WORKERS, strict=True):
        send(pipeline, events[start : start + 3_000])
        running[module].send_signal(signal.SIGKILL)
        running[module].wait()
        running[module] = pipeline.start(module)
    pipeline.wait_for(lambda: pipeline.decided() >= len(events), "every decision", patience=150)
    pipeline.assert_each_ride_once([event.ride_id for event in events])


def test_a_deadline_outlives_the_service_and_a_late_prediction_makes_a_revision(
    pipeline: RidePipeline, sample: Path
) -> None:
    events = some_rides(sample, 200)
    pipeline.start("consumers.duration")
    first = pipeline.start("decision_service", DECISION_DEADLINE="25")
    send(pipeline, events)
    pipeline.wait_for(lambda: len(pipeline.records(RIDES.decision_state.name)) >= 400, "open decisions")
    first.send_signal(signal.SIGKILL)
    first.wait()
    killed_at = datetime.now(UTC)
    # The deadline is kept in the changelog: it is the first service's, not this one's.
    second = pipeline.start("decision_service", DECISION_DEADLINE="3600")
    pipeline.wait_for(lambda: (answer := pipeline.answer_of(second)) is not None and answer.ready, "readiness")
    ready_at = datetime.now(UTC)
    pipeline.wait_for(lambda: pipeline.decided() == 200, "partial decisions")
    for decisions in pipeline.decisions().values():
        (decision,) = decisions
        assert decision.missing == ["tip"]
        assert not decision.complete
        assert decision.action == "review"
        assert decision.opened_at < killed_at
        deadline = decision.opened_at + timedelta(seconds=25)
        assert deadline <= decision.decided_at < max(deadline, ready_at) + timedelta(seconds=10)

    pipeline.start("consumers.tip")
    pipeline.wait_for(lambda: len(pipeline.records(RIDES.decisions.name)) == 400, "revisions")
    for decisions in pipeline.decisions().values():
        assert [(d.revision, d.complete) for d in decisions] == [(0, False), (1, True)]
