"""`braidstream tail` on real Kafka: transactions, and schemas that only the registry knows."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from braidstream.avro import AvroSchema, write
from braidstream.registry import RegistryClient
from tests import command_line

pytestmark = pytest.mark.docker

TOPIC = "numbers"
SCHEMA = AvroSchema.from_text(
    '{"type": "record", "name": "Number", "fields": [{"name": "n", "type": "long"}]}',
)


@pytest.fixture
def settings(kafka: str, topic_prefix: str) -> dict[str, str]:
    """A topic of two partitions, under a prefix of its own."""
    topic = NewTopic(f"{topic_prefix}{TOPIC}", 2, 1)
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([topic])[topic.topic].result(20)
    return {"KAFKA_BOOTSTRAP_SERVERS": kafka, "TOPIC_PREFIX": topic_prefix, "BROKER_TIMEOUT": "20"}


@contextmanager
def transaction(settings: dict[str, str]) -> Iterator[Producer]:
    """A transaction that is open."""
    config = {"bootstrap.servers": settings["KAFKA_BOOTSTRAP_SERVERS"], "transactional.id": uuid.uuid4().hex}
    producer = Producer({**config, "transaction.timeout.ms": "60000"})
    producer.init_transactions(20)
    producer.begin_transaction()
    yield producer


def produce(
    producer: Producer, settings: dict[str, str], key: str, value: bytes = b"plain", partition: int = 0
) -> None:
    producer.produce(f"{settings['TOPIC_PREFIX']}{TOPIC}", value, key, partition=partition)
    assert producer.flush(20) == 0


def keys(settings: dict[str, str], *arguments: str) -> list[str]:
    done = command_line.run("tail", TOPIC, "--json", *arguments, settings=settings)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["key"] for line in done.stdout.splitlines()]


def test_the_end_is_reached_behind_the_markers_of_transactions(settings: dict[str, str]) -> None:
    with transaction(settings) as producer:
        produce(producer, settings, "committed")
        producer.commit_transaction(20)
    with transaction(settings) as producer:
        produce(producer, settings, "aborted")
        produce(producer, settings, "aborted too", partition=1)
        producer.abort_transaction(20)
    assert keys(settings, "--to-end") == ["committed"]


def test_the_end_includes_what_an_open_transaction_wrote(settings: dict[str, str]) -> None:
    with transaction(settings) as producer:
        produce(producer, settings, "late")
        with command_line.started("tail", TOPIC, "--to-end", "--json", settings=settings) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=3)
            producer.commit_transaction(20)
            output, _ = process.communicate(timeout=30)
    assert [json.loads(line)["key"] for line in output.splitlines()] == ["late"]


def test_a_partition_whose_first_records_were_deleted_is_read_from_where_it_begins(settings: dict[str, str]) -> None:
    with transaction(settings) as producer:
        for key in ("deleted", "kept"):
            produce(producer, settings, key)
        producer.commit_transaction(20)
    admin = AdminClient({"bootstrap.servers": settings["KAFKA_BOOTSTRAP_SERVERS"]})
    first = TopicPartition(f"{settings['TOPIC_PREFIX']}{TOPIC}", 0, 1)
    admin.delete_records([first])[first].result(20)
    assert keys(settings, "--to-end") == ["kept"]


def test_a_schema_that_only_the_registry_knows(settings: dict[str, str], registry: str) -> None:
    subject = f"{settings['TOPIC_PREFIX']}{TOPIC}-value"
    schema_id = RegistryClient(registry).register(subject, SCHEMA.text)
    with transaction(settings) as producer:
        produce(producer, settings, "known", write(schema_id, SCHEMA, {"n": 5}))
        produce(producer, settings, "unknown", write(schema_id + 1_000_000, SCHEMA, {"n": 5}))
        producer.commit_transaction(20)
    done = command_line.run("tail", TOPIC, "--to-end", "--json", settings={**settings, "SCHEMA_REGISTRY_URL": registry})
    known, unknown = (json.loads(line) for line in done.stdout.splitlines())
    assert known["value"] == {"n": 5}
    assert unknown["undecoded"]["reason"].startswith(f"schema id {schema_id + 1_000_000} is not known")


def test_a_registry_that_does_not_answer_is_told(settings: dict[str, str]) -> None:
    with transaction(settings) as producer:
        produce(producer, settings, "k", write(5, SCHEMA, {"n": 5}))
        producer.commit_transaction(20)
    done = command_line.run(
        "tail", TOPIC, "--to-end", settings={**settings, "SCHEMA_REGISTRY_URL": "http://localhost:1/apis/ccompat/v7"}
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        "Error: schema 5 has to be looked up, and the registry at http://localhost:1/apis/ccompat/v7"
    )
