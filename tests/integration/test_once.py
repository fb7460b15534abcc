"""A consumer that handles each subject once, killed again and again while everything comes several times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from braidstream.streaming.partitioning import partition_of_key
from braidstream.streaming.ports import Partition, partition_of
from braidstream.writer import open_writer
from schemas.ride_started import RideStarted
from tests.faults.observing import offsets_of
from tests.integration.ride_pipeline import RidePipeline
from tests.notifications import NOTIFICATIONS, NOTIFIED, NOTIFYING, Notification, users_of
from tests.unit.events import ride

pytestmark = pytest.mark.docker

MODULE = "tests.integration.notifying"
GROUP = "notifying"


@pytest.fixture
def notifying(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[RidePipeline]:
    """The topics; nothing is started yet."""
    environment = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "TOPIC_PREFIX": topic_prefix, "BROKER_TIMEOUT": "60"}
    with RidePipeline(environment, tmp_path, tmp_path, NOTIFYING) as started:
        yield started


def send(pipeline: RidePipeline, rides: Sequence[RideStarted]) -> None:
    with open_writer(NOTIFYING.subjects, pipeline.settings) as writer:
        for event in rides:
            writer.send(event)


def await_end(pipeline: RidePipeline) -> None:
    """Wait until the group has committed every record."""
    topic, group = pipeline.settings.named(NOTIFYING.subjects.name), pipeline.settings.named(GROUP)
    ends = Counter(partition_of(record) for record in pipeline.records(NOTIFYING.subjects.name))
    with offsets_of(pipeline.settings, {group: (topic,)}) as offsets:

        def at_end() -> bool:
            committed = offsets()[group]
            return all(committed.get(Partition(*at), 0) >= end for at, end in ends.items())

        pipeline.wait_for(at_end, "the group at the end")


def given(pipeline: RidePipeline) -> Counter[tuple[str, str]]:
    """How often each ride was told to each user."""
    notifications: list[Notification] = pipeline.events(NOTIFICATIONS)
    return Counter((found.ride_id, found.user_id) for found in notifications)


def has_more(pipeline: RidePipeline, than: int) -> bool:
    return len(pipeline.records(NOTIFICATIONS.name)) > than


def test_each_ride_is_handled_once_by_workers_that_are_killed(notifying: RidePipeline) -> None:
    rides = [ride(f"ride-{number}", pickup_zone=1 + number % 264, passenger_count=number % 4) for number in range(600)]
    for part in (rides[:300], rides[100:450], rides[200:]):
        before = len(notifying.records(NOTIFICATIONS.name))
        worker = notifying.start(MODULE, BATCH_SIZE="7")
        send(notifying, part)
        notifying.wait_for(partial(has_more, notifying, before), "notifications")
        worker.kill()
        worker.wait()
    send(notifying, rides)
    last = [notifying.start(MODULE, BATCH_SIZE="7") for _ in range(2)]
    await_end(notifying)

    assert given(notifying) == Counter((event.ride_id, user) for event in rides for user in users_of(event))
    assert {handled.subject_id for handled in notifying.events(NOTIFIED)} == {event.ride_id for event in rides}
    assert notifying.records(NOTIFYING.dead_letters) == []
    keys = {(record.key() or b"", record.partition()) for record in notifying.records(NOTIFICATIONS.name)}
    assert keys == {(key, partition_of_key(key, notifying.settings.partitions)) for key, _ in keys}
    for worker in last:
        notifying.stop(worker)
