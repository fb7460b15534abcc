"""`braidstream lag` on real Kafka: members of both protocols, and ends behind markers of transactions."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import click
import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from braidstream.cli import completion, main

pytestmark = pytest.mark.docker


@pytest.fixture
def topic(kafka: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Ten records in each of two partitions, written in a transaction."""
    name = f"{topic_prefix}ride_started"
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(20)
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": name})
    producer.init_transactions(20)
    producer.begin_transaction()
    for number in range(20):
        producer.produce(name, b"r", partition=number % 2)
    producer.commit_transaction(20)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    monkeypatch.setenv("TOPIC_PREFIX", topic_prefix)
    return name


def lag() -> dict[str, Any]:
    done = CliRunner().invoke(main, ["lag", "--json", "--partitions"], prog_name="braidstream")
    assert done.exit_code == 0, done.output
    return {group["group"]: group for group in json.loads(done.stdout)["groups"]}


def consumer(kafka: str, group: str, **config: str) -> Consumer:
    fixed = {"bootstrap.servers": kafka, "group.id": group, "auto.offset.reset": "earliest"}
    return Consumer({**fixed, **config, "enable.auto.commit": False})


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_groups_members_are_shown_with_what_they_have_not_processed(kafka: str, topic: str, protocol: str) -> None:
    group = f"{topic}-{protocol}"
    assert lag() == {}
    with closing(consumer(kafka, group, **{"group.protocol": protocol, "client.id": "reader"})) as member:
        member.subscribe([topic])
        assert member.poll(30) is not None
        member.commit(offsets=[TopicPartition(topic, 0, 4), TopicPartition(topic, 1, 10)], asynchronous=False)
        found = lag()[group]
        assert (found["state"], found["members"]) == ("stable", 1)
        (only,) = found["member_list"]
        assert only["client"] == "reader"
        behind, drained = found["topics"][0]["partitions"]
        # Of the marker of the transaction, which nobody can read, one knows only where it is the last.
        assert (behind["committed"], behind["lag_records"], behind["member"]) == (4, 7, only["id"])
        assert 0 < behind["lag_seconds"] < 60
        assert (drained["committed"], drained["end"], drained["lag_records"]) == (10, 11, 0)
    left = lag()[group]
    assert (left["state"], left["members"], left["member_list"]) == ("empty", 0, [])
    assert left["topics"][0]["lag_records"] == 7
    offered = completion.groups(click.Context(main), click.Argument(["group"]), "ride_started-c")
    assert f"ride_started-{protocol}" in offered


def test_what_an_open_transaction_wrote_is_not_behind_yet(kafka: str, topic: str) -> None:
    group = f"{topic}-group"
    with closing(consumer(kafka, group)) as committer:
        committer.commit(offsets=[TopicPartition(topic, number, 10) for number in (0, 1)], asynchronous=False)
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": topic})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, b"r", partition=0)
    assert producer.flush(20) == 0
    assert lag()[group]["topics"][0]["lag_records"] == 0
    producer.commit_transaction(20)
    assert lag()[group]["topics"][0]["lag_records"] > 0
