"""Finding the records of one subject, on the embedded broker."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Message, Producer

from braidstream.avro import Codec, LocalSchemas
from braidstream.cli.reading import TopicReader
from braidstream.cli.records import Decoder, Record
from braidstream.cli.search import Findings, Search
from braidstream.embedded import PARTITIONS, EmbeddedBroker, appear
from braidstream.pipelines import Topic
from braidstream.registry import schemas_for
from braidstream.settings import Settings
from braidstream.streaming import clients
from braidstream.streaming.dead_letters import REPLAY_GROUP
from braidstream.streaming.partitioning import partition_of_key
from schemas.decision import Decision
from tests import command_line
from tests.notifications import NOTIFICATIONS, NOTIFYING, Notification
from tests.unit.events import NOON, prediction, ride

RIDES_THERE = 50
FOREIGN = "ride-of-another-partitioner"
LONG_AGO = "ride-long-ago"
GONE = "ride-whose-event-is-gone"
OPENED_AT = {
    GONE: NOON,
    "before all": datetime(1, 1, 1, tzinfo=UTC),
    "after all": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
}
NEVER = "ride-never"


class World(NamedTuple):
    """A broker with rides, and what was decoded of them."""

    environment: Mapping[str, str]
    decoded: list[Message]

    def search(self, subject_id: str, *, back: int = 100_000, since: datetime | None = None) -> Findings:
        with self.searching(subject_id, back=back) as search:
            return search.run(since, datetime.now(UTC))

    @contextmanager
    def searching(self, subject_id: str, *, back: int = 100_000) -> Iterator[Search]:
        settings = Settings.load(self.environment)
        settings = settings.model_copy(update={"topic_prefix": "x."})
        decode = Decoder(schemas_for(settings, [topic.event_type for topic in NOTIFYING.topics]))

        def counted(message: Message) -> Record:
            self.decoded.append(message)
            return decode(message)

        with closing(clients.reader(settings, "test")) as consumer:
            reader = TopicReader(consumer, settings, "x.ride_started")
            yield Search(
                reader, settings, NOTIFYING, decode=counted, subject_id=subject_id, tell=lambda _: None, back=back
            )


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    """Rides, of which some have more than an event."""
    with EmbeddedBroker() as running:
        producer = Producer({"bootstrap.servers": running.bootstrap_servers, "partitioner": "murmur2_random"})
        appear(producer, [f"x.{topic.name}" for topic in NOTIFYING.topics] + ["x.dead_letters"])

        def send(topic: Topic[Any], event: Any, **more: Any) -> None:
            codec: Codec[Any] = Codec(topic.event_type, LocalSchemas(topic.event_type), topic.name)
            producer.produce(f"x.{topic.name}", codec.encode(event), topic.key_of(event), **more)

        send(NOTIFYING.subjects, ride(LONG_AGO))
        for number in range(RIDES_THERE):
            send(NOTIFYING.subjects, ride(f"ride-{number}"))
            send(NOTIFICATIONS, Notification(user_id=f"user-{number % 3}", ride_id=f"ride-{number}"))
        send(NOTIFYING.subjects, ride(LONG_AGO), headers={REPLAY_GROUP: b"tip"})
        elsewhere = (partition_of_key(FOREIGN.encode(), PARTITIONS) + 1) % PARTITIONS
        send(NOTIFYING.subjects, ride(FOREIGN), partition=elsewhere)
        made = {"revision": 0, "action": "a", "reasons": [], "complete": True, "missing": [], "evidence": []}
        for subject_id, opened_at in OPENED_AT.items():
            send(NOTIFYING.decisions, Decision(subject_id=subject_id, opened_at=opened_at, decided_at=NOON, **made))
        send(NOTIFYING.predictions, prediction(GONE))
        producer.produce("x.dead_letters", b"?", FOREIGN.encode(), partition=elsewhere)
        producer.produce("x.dead_letters", b"?", b"ride-0", partition=elsewhere)
        assert producer.flush(10) == 0
        yield running


@pytest.fixture
def world(broker: EmbeddedBroker) -> World:
    return World(broker.environment, [])


def places(found: Findings) -> list[tuple[str, bytes | None]]:
    return [(sighting.topic, sighting.record.key) for sighting in found.sightings]


def test_one_subject_is_found_in_its_topics_and_nothing_else_is_decoded(world: World) -> None:
    found = world.search("ride-7")
    assert places(found) == [("ride_started", b"ride-7"), ("notifications", b"user-1")]
    assert found.home == found.sightings[0].record.partition == partition_of_key(b"ride-7", PARTITIONS)
    assert len(world.decoded) == 2


def test_a_name_within_a_name_is_not_it(world: World) -> None:
    """ride-1 is in what notifies of ride-17, as bytes."""
    found = world.search("ride-1")
    assert places(found) == [("ride_started", b"ride-1"), ("notifications", b"user-1")]


def test_a_subject_in_another_partition_than_its_keys(world: World) -> None:
    found = world.search(FOREIGN)
    assert places(found) == [("ride_started", FOREIGN.encode()), ("dead_letters", FOREIGN.encode())]
    assert {sighting.record.partition for sighting in found.sightings} == {(found.home + 1) % PARTITIONS}


def test_the_search_goes_back_past_what_was_sent_back(world: World) -> None:
    found = world.search(LONG_AGO, back=2)
    assert [sighting.sent_back_for for sighting in found.sightings] == ["tip", None]
    assert found.since is not None
    assert found.since < datetime.now(UTC)


def test_a_decision_stands_in_for_an_event_that_is_gone(world: World) -> None:
    found = world.search(GONE)
    assert places(found) == [("decisions", GONE.encode()), ("predictions", GONE.encode())]
    assert found.since == NOON - timedelta(minutes=1)
    assert found.until is None, "it was made just now"


@pytest.mark.parametrize("subject_id", ["before all", "after all"])
def test_a_decision_that_was_opened_at_no_time_there_is(world: World, subject_id: str) -> None:
    found = world.search(subject_id)
    assert places(found) == [("decisions", subject_id.encode())]
    assert found.until is None


def test_nothing_is_found_of_a_subject_that_never_was(world: World) -> None:
    assert world.search(NEVER, back=3).sightings == []
    assert world.search(NEVER, since=datetime.now(UTC) - timedelta(hours=1)).sightings == []
    assert world.decoded == []


def test_stretches_cover_everything_once_from_the_end_on(world: World) -> None:
    settings = Settings.load(world.environment)
    with closing(clients.reader(settings, "test")) as consumer:
        reader = TopicReader(consumer, settings, "x.ride_started")
        firsts, ends = reader.between(reader.numbers, None, None)
        stretches = list(reader.stretches(reader.numbers, 3))
    assert stretches[0][1] == ends
    assert stretches[-1][0] == firsts
    assert all(earlier[1] == later[0] for later, earlier in pairwise(stretches))
    assert {end - stretches[0][0][number] for number, end in ends.items()} == {3}


def test_only_partitions_of_which_something_is_left_are_read(world: World) -> None:
    settings = Settings.load(world.environment)
    with closing(clients.reader(settings, "test")) as consumer:
        reader = TopicReader(consumer, settings, "x.ride_started")
        ends = reader.ends(reader.numbers)
        reading = reader.read({**ends, 0: 0, 1: 0}, {**ends, 0: 1})
        next(reading)
        assert {at.partition for at in consumer.assignment()} == {0, 1}
        assert list(reading)
        assert consumer.assignment() == []


def test_the_command_tells_it_in_lines_and_as_json(broker: EmbeddedBroker) -> None:
    settings = {**broker.environment, "TOPIC_PREFIX": "x.", "EXPECTED_MODELS": "duration, tip"}
    told = command_line.run("trace", "ride-7", settings=settings)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("ride_id ride-7\n")
    assert "duration has not answered.\ntip has not answered.\nThere is no decision" in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 80
    said = json.loads(command_line.run("trace", "ride-7", "--json", settings=settings).stdout)
    assert [entry["key"] for entry in said["timeline"]] == ["ride-7"]
    missing = command_line.run("trace", NEVER, "--since", "2026-01-01T01:00+02:00", settings=settings)
    assert missing.returncode == 1
    assert missing.stderr.startswith(f"Error: {NEVER} is not found: no record has this key in x.ride_started (all 4 ")
    assert ", from 2025-12-31 23:00:00 UTC on, nor in " in missing.stderr
