"""`braidstream topics` on real Kafka and a real registry."""

from __future__ import annotations

import subprocess

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from braidstream.registry import RegistryClient
from rides.pipeline import RIDES
from tests import command_line

pytestmark = pytest.mark.docker

NAMES = ["ride_started", "predictions", "decisions", "decision_state", "dead_letters"]


@pytest.fixture
def settings(kafka: str, topic_prefix: str) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "TOPIC_PREFIX": topic_prefix,
        "PARTITIONS": "3",
        "BROKER_TIMEOUT": "20",
        "LOG_LEVEL": "error",
    }


def topics(command: str, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return command_line.run("topics", command, settings=settings)


def create_topic(settings: dict[str, str], name: str, partitions: int) -> None:
    topic = NewTopic(f"{settings['TOPIC_PREFIX']}{name}", partitions, 1)
    admin = AdminClient({"bootstrap.servers": settings["KAFKA_BOOTSTRAP_SERVERS"]})
    admin.create_topics([topic])[topic.topic].result(20)


def test_what_is_missing_is_created_and_a_second_time_nothing(settings: dict[str, str], topic_prefix: str) -> None:
    create_topic(settings, "predictions", 3)
    first = topics("create", settings)
    assert first.returncode == 0, first.stderr
    others = ", ".join(f"{topic_prefix}{name}" for name in NAMES if name != "predictions")
    assert first.stdout == f"Created {others} with 3 partitions each.\n{topic_prefix}predictions: there already.\n"
    second = topics("create", settings)
    everything = ", ".join(f"{topic_prefix}{name}" for name in NAMES)
    assert (second.returncode, second.stdout) == (0, f"{everything}: there already.\n")
    assert topics("check", settings).returncode == 0


def test_schemas_are_registered_where_there_is_a_registry(settings: dict[str, str], registry: str) -> None:
    with_registry = {**settings, "SCHEMA_REGISTRY_URL": registry}
    first = topics("create", with_registry)
    assert first.returncode == 0, first.stderr
    client = RegistryClient(registry)
    for topic in RIDES.topics:
        subject = f"{settings['TOPIC_PREFIX']}{topic.name}-value"
        schema_id = client.find(subject, topic.event_type.latest.text)
        assert schema_id is not None
        assert f"{subject} has id {schema_id}" in first.stdout
    assert topics("create", with_registry).stdout.splitlines()[-1] == first.stdout.splitlines()[-1]


def test_check_creates_nothing_and_names_everything_that_is_missing(settings: dict[str, str]) -> None:
    for _ in range(2):
        done = topics("check", settings)
        assert done.returncode == 2
        assert [f"{settings['TOPIC_PREFIX']}{name} is missing" in done.stderr for name in NAMES] == [True] * 5


@pytest.mark.parametrize("command", ["create", "check"])
def test_a_wrong_topic_is_named(settings: dict[str, str], command: str) -> None:
    assert topics("create", {**settings, "PARTITIONS": "2"}).returncode == 0
    done = topics(command, settings)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: topic {settings['TOPIC_PREFIX']}ride_started has 2 partitions, not 3")


def test_a_changelog_that_is_not_compacted_is_named(settings: dict[str, str]) -> None:
    create_topic(settings, "decision_state", 3)
    done = topics("create", settings)
    assert done.returncode == 2
    assert f"{settings['TOPIC_PREFIX']}decision_state has cleanup.policy=delete, not compact" in done.stderr
