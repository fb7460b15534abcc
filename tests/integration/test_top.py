"""`braidstream top` on real Kafka: groups with their lag, and rates without the markers of transactions."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from braidstream.cli.groups import FirstRecords, Groups, lags
from braidstream.cli.polling import AtRest
from braidstream.settings import Settings
from braidstream.streaming import clients, topics
from braidstream.streaming.ports import Partition
from rides.pipeline import RIDES
from tests import command_line

pytestmark = pytest.mark.docker

READ = 3


@pytest.fixture
def settings(kafka: str, topic_prefix: str) -> dict[str, str]:
    """The topics of the rides, of one partition each, with five rides of which a group has read three."""
    found = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "TOPIC_PREFIX": topic_prefix, "PARTITIONS": "1"}
    loaded = Settings(kafka={"bootstrap.servers": kafka}, topic_prefix=topic_prefix, partitions=1)
    topics.create(clients.admin(loaded), topics.specs(RIDES, loaded), None)
    topics.check(clients.admin(loaded), topics.specs(RIDES, loaded), loaded)
    producer = Producer({"bootstrap.servers": kafka})
    for number in range(5):
        producer.produce(f"{topic_prefix}ride_started", b"a ride", f"ride-{number}")
    assert producer.flush(20) == 0
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": f"{topic_prefix}duration"})
    consumer.commit(offsets=[TopicPartition(f"{topic_prefix}ride_started", 0, READ)], asynchronous=False)
    consumer.close()
    return found


def views(process: subprocess.Popen[str]) -> Iterator[Any]:
    assert process.stdout is not None
    return (json.loads(line) for line in process.stdout)


def topic(view: Any, name: str) -> Any:
    return next(row for row in view["topics"] if row["name"] == name)


def test_groups_and_rates_in_transactions(settings: dict[str, str]) -> None:
    prefix = settings["TOPIC_PREFIX"]
    server = {"bootstrap.servers": settings["KAFKA_BOOTSTRAP_SERVERS"]}
    plain, producer = Producer(server), Producer({**server, "transactional.id": uuid.uuid4().hex})
    producer.init_transactions(20)
    with command_line.started("top", "--json", "--every", "0.5", settings=settings) as process:
        found = views(process)
        first = next(view for view in found if view["groups"])
        for view in found:
            if topic(view, f"{prefix}predictions")["offsets"] >= 60:
                break
            for number in range(10):
                producer.begin_transaction()
                producer.produce(f"{prefix}predictions", b"a prediction", b"ride")
                producer.commit_transaction(20)
                plain.produce(f"{prefix}ride_started", b"a ride", f"another-{number}")
            assert plain.flush(20) == 0

    assert first["groups"] == [{"name": f"{prefix}duration", "lag": 5 - READ, "members": 0}]
    assert topic(first, f"{prefix}ride_started")["offsets"] == 5
    assert topic(view, f"{prefix}predictions")["offsets"] > topic(view, f"{prefix}ride_started")["offsets"] + 20
    rides, predictions = (topic(view, f"{prefix}{name}")["rate"] for name in ("ride_started", "predictions"))
    assert predictions == pytest.approx(rides, rel=0.4), "a transaction's marker is no record"


def test_a_marker_of_a_transaction_is_no_lag_of_a_group_at_rest(settings: dict[str, str]) -> None:
    prefix = settings["TOPIC_PREFIX"]
    server = {"bootstrap.servers": settings["KAFKA_BOOTSTRAP_SERVERS"]}
    producer = Producer({**server, "transactional.id": uuid.uuid4().hex})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(f"{prefix}predictions", b"a prediction", b"ride")
    producer.commit_transaction(20)
    consumer = Consumer({**server, "group.id": f"{prefix}decision"})
    consumer.commit(offsets=[TopicPartition(f"{prefix}predictions", 0, 1)], asynchronous=False)
    consumer.close()
    partitions = [Partition(f"{prefix}{name}", 0) for name in ("ride_started", "predictions")]
    loaded = Settings.load(settings)
    asked = Groups(clients.admin(loaded))
    with closing(FirstRecords(loaded)) as first_records:
        at_rest = AtRest(first_records)
        looks = [at_rest(lags(asked.of(partitions), asked.logs(partitions))) for _ in range(2)]
    with command_line.started("top", "--json", "--every", "0.5", settings=settings) as process:
        shown = ({group["name"]: group["lag"] for group in view["groups"]} for view in islice(views(process), 60))
        without = next(lag for lag in shown if lag.get(f"{prefix}decision") == 0)

    first, second = ({row.group: row.records for row in look} for look in looks)
    assert first == {f"{prefix}decision": 1, f"{prefix}duration": 5 - READ}
    assert second == without == {f"{prefix}decision": 0, f"{prefix}duration": 5 - READ}
