"""`braidstream trace` on real Kafka, which knows when records were written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.cimpl import NewTopic

from braidstream.avro import Codec, LocalSchemas
from braidstream.cli.reading import TopicReader
from braidstream.cli.records import Decoder
from braidstream.cli.search import Findings, Search
from braidstream.errors import UnavailableError
from braidstream.pipelines import Topic
from braidstream.settings import Settings
from braidstream.streaming import clients
from braidstream.streaming.partitioning import partition_of_key
from rides.pipeline import RIDES
from schemas.decision import Decision
from tests.integration.ride_pipeline import RidePipeline
from tests.unit.events import NOON, prediction, ride

pytestmark = pytest.mark.docker

SENT_AT = datetime.now(UTC) - timedelta(hours=4)


@pytest.fixture
def rides(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[RidePipeline]:
    """The topics, without any worker."""
    environment = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "TOPIC_PREFIX": topic_prefix}
    with RidePipeline(environment, tmp_path, tmp_path) as started:
        yield started


def decision(ride_id: str, missing: list[str]) -> Decision:
    return Decision(
        subject_id=ride_id,
        revision=0,
        action="standard",
        reasons=[],
        complete=not missing,
        missing=missing,
        evidence=[],
        opened_at=NOON,
        decided_at=NOON,
    )


def write(rides: RidePipeline, *events: tuple[float, Topic[Any], Any]) -> None:
    """Events with the minutes after `SENT_AT` at which they are written, in order; each behind one of another ride."""
    config = {"bootstrap.servers": rides.settings.bootstrap_servers, "partitioner": "murmur2_random"}
    producer = Producer(config)
    for minutes, topic, event in events:
        codec: Codec[Any] = Codec(topic.event_type, LocalSchemas(topic.event_type), topic.name)
        at = SENT_AT + timedelta(minutes=minutes)
        key, name = topic.key_of(event), rides.settings.named(topic.name)
        for subject in (b"another", key.encode()):
            producer.produce(name, codec.encode(event), subject, timestamp=int(at.timestamp() * 1000))
    assert producer.flush(30) == 0


def search(rides: RidePipeline, ride_id: str, since: datetime | None = None) -> Findings:
    decode = Decoder(LocalSchemas(*(topic.event_type for topic in RIDES.topics)))
    with closing(clients.stretch_reader(rides.settings, rides.settings.named("test"))) as consumer:
        reader = TopicReader(consumer, rides.settings, rides.settings.named(RIDES.subjects.name))
        found = Search(reader, rides.settings, RIDES, decode=decode, subject_id=ride_id, tell=lambda _: None)
        return found.run(since, datetime.now(UTC))


def minutes(found: Findings) -> list[tuple[str, int]]:
    """What was found, and the minutes after `SENT_AT`."""
    return [
        (sighting.topic, round((at - SENT_AT).total_seconds() / 60))
        for sighting in found.sightings
        if (at := sighting.record.timestamp) is not None
    ]


def test_what_came_soon_after_the_event_and_later_where_the_decision_was_not_complete(rides: RidePipeline) -> None:
    both = [("whole", decision("whole", [])), ("part", decision("part", ["tip"]))]
    write(
        rides,
        *((0, RIDES.subjects, ride(ride_id)) for ride_id, _ in both),
        *((0, RIDES.predictions, prediction(ride_id)) for ride_id, _ in both),
        *((1, RIDES.decisions, made) for _, made in both),
        *((30, RIDES.predictions, prediction(ride_id, model="tip")) for ride_id, _ in both),
        *((120, RIDES.predictions, prediction(ride_id, model="speed")) for ride_id, _ in both),
    )
    soon = [("ride_started", 0), ("predictions", 0), ("decisions", 1)]

    whole = search(rides, "whole")
    assert minutes(whole) == soon
    assert (whole.since, whole.until) == (_at(-1), _at(2))

    part = search(rides, "part")
    assert minutes(part) == [*soon, ("predictions", 30)]
    assert part.until == _at(60)

    assert sorted(minutes(search(rides, "whole", _at(-60)))) == sorted(
        [*soon, ("predictions", 30), ("predictions", 120)]
    )
    assert minutes(search(rides, "whole", _at(60))) == []


def test_until_it_is_decided_everything_is_read_to_the_end(rides: RidePipeline) -> None:
    write(rides, (0, RIDES.subjects, ride("late")), (180, RIDES.decisions, decision("late", ["tip"])))
    late = search(rides, "late")
    assert minutes(late) == [("ride_started", 0), ("decisions", 180)]
    assert late.until is None
    assert minutes(search(rides, "late", datetime.min.replace(tzinfo=UTC))) == minutes(late)


def test_topics_with_fewer_partitions_have_no_records_of_the_others(kafka: str, topic_prefix: str) -> None:
    settings = Settings(kafka={"bootstrap.servers": kafka}, topic_prefix=topic_prefix, broker_timeout=5)
    names = {settings.named(topic): partitions for topic, partitions in (("ride_started", 2), ("decisions", 1))}
    client = clients.admin(settings)
    for created in client.create_topics([NewTopic(name, count, 1) for name, count in names.items()]).values():
        created.result(20)
    with closing(clients.stretch_reader(settings, settings.named("test"))) as consumer:
        reader = TopicReader(consumer, settings, settings.named("ride_started"))
        subject_id = next(name for name in "abcdefgh" if partition_of_key(name.encode(), 2) == 1)
        looking = Search(
            reader, settings, RIDES, decode=Decoder(LocalSchemas()), subject_id=subject_id, tell=lambda _: None
        )
        assert looking.run(None, datetime.now(UTC)).sightings == []
        with pytest.raises(UnavailableError, match=r"was written to .*decisions when: "):
            reader.of(settings.named("decisions")).between([1], SENT_AT, None)


def _at(minutes: float) -> datetime:
    at = SENT_AT + timedelta(minutes=minutes)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
