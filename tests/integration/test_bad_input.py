"""What bad records, topics, schemas and models get, on real Kafka."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from braidstream.avro import write
from braidstream.registry import RegistryClient
from braidstream.streaming.clients import plain_producer
from braidstream.streaming.dead_letters import raw_headers
from braidstream.streaming.processor import PARTITIONED_BY_KEY
from rides.pipeline import RIDES
from tests.integration.ride_pipeline import RidePipeline

pytestmark = pytest.mark.docker

SCHEMA = RIDES.subjects.event_type.latest
GOOD: dict[str, Any] = {
    "ride_id": "r",
    "pickup_at": datetime(2024, 3, 1, 12),  # noqa: DTZ001 - the contract's times are local
    "pickup_zone": 74,
    "dropoff_zone": 75,
    "trip_distance": 1.5,
    "passenger_count": 1,
}


def ride(ride_id: str, **changes: Any) -> bytes:
    return write(SCHEMA.local_id, SCHEMA, {**GOOD, "ride_id": ride_id, **changes})


def milliseconds(time: datetime) -> int:
    return (time - datetime(1970, 1, 1)) // timedelta(milliseconds=1)  # noqa: DTZ001 - as above


BAD: dict[str, tuple[bytes | None, str]] = {
    "not-avro": (b"hello", "not in Confluent's wire format"),
    "empty": (b"", "not in Confluent's wire format"),
    "null": (None, "the value is null"),
    "unknown-id": (struct.pack(">BI", 0, 77) + ride("unknown-id")[5:], "schema id 77 is not known"),
    "truncated": (ride("truncated")[:-9], "not readable as"),
    "trailing": (ride("trailing") + b"\0\0", "2 bytes are left"),
    "zone": (ride("zone", pickup_zone=999), "pickup_zone = 999"),
    "negative": (ride("negative", trip_distance=-1.0), "trip_distance = -1.0"),
    "nan": (ride("nan", trip_distance=float("nan")), "trip_distance = nan"),
    "year": (ride("year", pickup_at=milliseconds(datetime(9999, 1, 1))), "less than 2100-01-01"),  # noqa: DTZ001
    "after-time": (ride("after-time", pickup_at=1 << 60), "not readable as"),
    "other-key": (ride("somebody-else"), "is not the ride_id"),
}


def test_bad_records_become_dead_letters_and_the_others_go_on(pipeline: RidePipeline) -> None:
    producer = Producer({"bootstrap.servers": pipeline.environment["KAFKA_BOOTSTRAP_SERVERS"]})
    topic = pipeline.settings.named(RIDES.subjects.name)
    for number, (key, (value, _)) in enumerate(BAD.items()):
        producer.produce(topic, value, key, partition=0, headers=[("trace", b"\xff\x00")])
        producer.produce(topic, ride(f"good-{number}"), f"good-{number}", partition=0)
    assert producer.flush(30) == 0
    worker = pipeline.start("consumers.duration")
    pipeline.wait_for(lambda: len(pipeline.records(RIDES.predictions.name)) >= len(BAD), "predictions")
    pipeline.stop(worker)

    assert {ride for ride, _ in pipeline.predictions()} == {f"good-{number}" for number in range(len(BAD))}
    letters = {letter.key(): letter for letter in pipeline.records(RIDES.dead_letters)}
    assert letters.keys() == {key.encode() for key in BAD}
    for offset, (key, (value, reason)) in enumerate(BAD.items()):
        letter = letters[key.encode()]
        headers = {name: value or b"" for name, value in raw_headers(letter)}
        assert letter.value() == value
        assert headers["trace"] == b"\xff\x00"
        assert reason in headers["__connect.errors.exception.message"].decode()
        assert headers["__connect.errors.topic"].decode() == topic
        assert headers["__connect.errors.partition"] == b"0"
        assert headers["__connect.errors.offset"].decode() == str(2 * offset)


def refusal(pipeline: RidePipeline, module: str, code: int, **environment: str) -> str:
    """What a program says that refuses to go on; no traceback."""
    done = pipeline.run_with(environment, module)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("module", ["consumers.duration", "decision_service"])
def test_a_missing_broker_is_named_after_the_limit(pipeline: RidePipeline, module: str) -> None:
    said = refusal(pipeline, module, 1, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1", BROKER_TIMEOUT="2")
    assert "no broker answers at 127.0.0.1:1 within 2 s" in said


def test_missing_topics_are_named_after_the_limit(pipeline: RidePipeline) -> None:
    said = refusal(pipeline, "decision_service", 1, TOPIC_PREFIX="nowhere-", BROKER_TIMEOUT="2")
    assert "nowhere-ride_started" in said
    assert "braidstream topics create" in said


def test_a_missing_registry_is_named_after_the_limit(pipeline: RidePipeline) -> None:
    said = refusal(
        pipeline, "consumers.tip", 1, SCHEMA_REGISTRY_URL="http://127.0.0.1:1/apis/ccompat/v7", BROKER_TIMEOUT="2"
    )
    assert "http://127.0.0.1:1/apis/ccompat/v7" in said


def test_the_wrong_number_of_partitions_is_refused(pipeline: RidePipeline) -> None:
    said = refusal(pipeline, "decision_service", 2, PARTITIONS="5")
    assert "has 6 partitions, not 5 (PARTITIONS)" in said


def test_a_changelog_that_is_not_compacted_is_refused(pipeline: RidePipeline, kafka: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka})
    prefix = f"{pipeline.settings.topic_prefix}deleting-"
    new = [NewTopic(f"{prefix}{t.name}", 6, 1) for t in RIDES.topics] + [
        NewTopic(f"{prefix}{RIDES.dead_letters}", 6, 1)
    ]
    for future in admin.create_topics(new).values():
        future.result(30)
    assert "cleanup.policy=delete, not compact" in refusal(pipeline, "decision_service", 2, TOPIC_PREFIX=prefix)


def test_a_model_of_another_consumer_is_refused_by_name(pipeline: RidePipeline, models: Path) -> None:
    said = refusal(pipeline, "consumers.duration", 2, MODEL_URI=str(models / "tip"))
    assert "tip" in said
    assert "duration" in said


def test_an_incompatible_schema_is_refused(pipeline: RidePipeline, registry: str) -> None:
    subject = f"{pipeline.settings.named(RIDES.predictions.name)}-value"
    other = (
        '{"type": "record", "name": "Prediction", "namespace": "braidstream", "fields": [{"name": "x", "type": "int"}]}'
    )
    RegistryClient(registry).register(subject, other)
    said = refusal(pipeline, "consumers.duration", 2, SCHEMA_REGISTRY_URL=registry)
    assert f"the schema of {subject} is not compatible (FULL_TRANSITIVE)" in said


def test_java_and_this_producer_put_a_key_on_the_same_partition(
    pipeline: RidePipeline, java_produce: Callable[[str, list[str]], None]
) -> None:
    keys = [f"ride-{number}" for number in range(500)]
    topic = pipeline.settings.named(RIDES.dead_letters)
    java_produce(topic, keys)
    by_java = {m.key(): m.partition() for m in pipeline.records(RIDES.dead_letters)}
    assert by_java.keys() == {key.encode() for key in keys}

    producer = plain_producer(pipeline.settings, "test")
    name = pipeline.settings.named(RIDES.subjects.name)
    for key in keys:
        producer.produce(name, value=b"", key=key.encode(), partition=PARTITIONED_BY_KEY, on_delivery=None, headers=[])
    assert producer.flush(30) == 0
    assert {m.key(): m.partition() for m in pipeline.records(RIDES.subjects.name)} == by_java
