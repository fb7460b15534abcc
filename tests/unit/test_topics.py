"""The topics of a pipeline: what they are created with, and what is refused at start."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from braidstream.errors import SettingsError, UnavailableError
from braidstream.pipelines import Topic, pipeline
from braidstream.settings import Settings
from braidstream.streaming import topics
from braidstream.streaming.topics import ROOM, TopicSpec
from rides.pipeline import RIDES
from tests.notifications import NOTIFYING

SETTINGS = Settings(kafka={"bootstrap.servers": "localhost:1"}, partitions=3, topic_prefix="test-", broker_timeout=10)


def test_every_topic_has_the_same_partitions_and_the_prefix() -> None:
    specs = topics.specs(RIDES, SETTINGS)
    assert [spec.name for spec in specs] == [
        "test-ride_started",
        "test-predictions",
        "test-decisions",
        "test-decision_state",
        "test-dead_letters",
    ]
    assert {spec.partitions for spec in specs} == {3}


def test_a_key_that_is_no_field_is_refused() -> None:
    with pytest.raises(SettingsError, match="'nope', which is no field of RideStarted: it has ride_id"):
        Topic("rides", RIDES.subjects.event_type, "nope")


def test_the_changelog_is_compacted_in_small_segments() -> None:
    config = {spec.name: spec.config for spec in topics.specs(RIDES, SETTINGS)}["test-decision_state"]
    assert config == {
        "cleanup.policy": "compact",
        "segment.bytes": "52428800",
        "segment.ms": "600000",
        "min.cleanable.dirty.ratio": "0.2",
        "max.message.bytes": str(1_048_588 + ROOM),
    }


def test_the_other_topics_of_a_pipeline_are_made_and_checked_with_the_rest() -> None:
    specs = {spec.name: spec for spec in topics.specs(NOTIFYING, SETTINGS)}
    assert {"test-notifications", "test-notified"} < specs.keys()
    assert {spec.partitions for spec in specs.values()} == {3}
    assert specs["test-notifications"].config == {}
    assert specs["test-notified"].config["cleanup.policy"] == "compact"


@pytest.mark.parametrize(("largest", "expected"), [(None, 1_048_588), (5_000_000, 5_000_000)])
def test_a_dead_letter_has_room_for_its_headers(largest: int | None, expected: int) -> None:
    config = {"max.message.bytes": str(largest)} if largest else {}
    clips = pipeline(Topic("clips", RIDES.subjects.event_type, "ride_id", config))
    assert topics.specs(clips, SETTINGS)[-1].config == {"max.message.bytes": str(expected + ROOM)}


class Future:
    """The answer of an admin client."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def result(self) -> Any:
        return self._result


class Described:
    """A topic, a setting or a cluster, as an admin client describes it."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class Admin:
    """Answers as an admin client does, after `silent` calls without an answer. Time passes with every call."""

    def __init__(
        self,
        partitions: dict[str, int],
        policy: str = "compact",
        silent: int = 0,
        max_bytes: dict[str, int] | None = None,
    ) -> None:
        self.now = 0.0
        self._partitions = partitions
        self._policy = policy
        self._silent = silent
        self._max_bytes = max_bytes or {}
        self.created: dict[str, dict[str, str]] = {}

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def list_topics(self, timeout: float) -> Any:
        self.now += 1
        if self._silent:
            self._silent -= 1
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        found = {name: Described(error=None, partitions=range(n)) for name, n in self._partitions.items()}
        return Described(topics=found, cluster_id="cluster", brokers={7: None})

    def describe_configs(self, resources: list[Any], request_timeout: float) -> Any:
        return {
            resource: Future(
                {
                    "cleanup.policy": Described(value=self._policy),
                    "max.message.bytes": Described(value=str(self._max_bytes.get(resource.name, 1_048_588))),
                    "message.max.bytes": Described(value=str(self._max_bytes.get("broker", 1_048_588))),
                }
            )
            for resource in resources
        }

    def create_topics(self, new: list[Any], operation_timeout: float) -> Any:
        self.created = {topic.topic: topic.config for topic in new}
        return {topic.topic: Future(None) for topic in new}

    def check(self, *wanted: TopicSpec, settings: Settings = SETTINGS) -> None:
        client: Any = self
        topics.check(client, wanted, settings, self.clock, self.sleep)


PLAIN = TopicSpec("events", 3, {})
COMPACTED = TopicSpec("state", 3, {"cleanup.policy": "compact"})


def test_topics_as_they_have_to_be_pass() -> None:
    Admin({"events": 3, "state": 3, "other": 1}).check(PLAIN, COMPACTED)


def test_another_number_of_partitions_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"topic events has 4 partitions, not 3 \(PARTITIONS\)"):
        Admin({"events": 4}).check(PLAIN)


def test_a_changelog_that_is_not_compacted_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"topic state has cleanup\.policy=delete, not compact"):
        Admin({"state": 3}, policy="delete").check(COMPACTED)


LETTERS = TopicSpec("letters", 3, {"max.message.bytes": "1"}, ("events",))


def test_a_topic_without_room_for_the_records_that_it_holds_is_refused_by_name() -> None:
    there = {"events": 3, "letters": 3}
    Admin(there, max_bytes={"events": 2_000_000, "letters": 2_000_000 + ROOM}).check(PLAIN, LETTERS)
    said = (
        rf"topic letters has max\.message\.bytes=2000000, and holds records of events .* raise it to {2_000_000 + ROOM}"
    )
    with pytest.raises(SettingsError, match=said):
        Admin(there, max_bytes={"events": 2_000_000, "letters": 2_000_000}).check(PLAIN, LETTERS)


def test_a_topic_that_does_not_take_a_whole_batch_is_refused_by_name() -> None:
    admin = Admin({"events": 3, "letters": 3}, max_bytes={"events": 100_000})
    with pytest.raises(
        SettingsError, match=r"topic events has max.* \(KAFKA_BATCH_SIZE=1000000\): .* to 100000 or less"
    ):
        admin.check(PLAIN, LETTERS)
    admin.check(PLAIN, LETTERS, settings=SETTINGS.model_copy(update={"kafka": {"batch.size": "100000"}}))


def test_what_holds_records_has_room_for_those_that_the_broker_takes() -> None:
    admin = Admin({}, max_bytes={"broker": 10_000_000})
    client: Any = admin
    topics.create(client, topics.specs(RIDES, SETTINGS), None)
    assert {name: config.get("max.message.bytes") for name, config in admin.created.items()} == {
        "test-ride_started": None,
        "test-predictions": None,
        "test-decisions": None,
        "test-decision_state": str(10_000_000 + ROOM),
        "test-dead_letters": str(10_000_000 + ROOM),
    }


def test_missing_topics_are_waited_for_and_then_named() -> None:
    admin = Admin({"state": 3})
    with pytest.raises(UnavailableError, match="topics are missing: events; create them with `braidstream topics cre"):
        admin.check(PLAIN, COMPACTED)
    assert 10 <= admin.now < 15


def test_a_broker_that_comes_late_is_waited_for() -> None:
    Admin({"events": 3}, silent=3).check(PLAIN)


def test_a_broker_that_does_not_come_is_given_up_by_name() -> None:
    with pytest.raises(UnavailableError, match=r"no broker answers at localhost:1 within 10 s \(BROKER_TIMEOUT\)"):
        Admin({}, silent=1000).check(PLAIN)


@pytest.mark.parametrize(("cluster", "embedded"), [("mockCluster7f", True), ("MkU3OEVBNTcwNTJENDM2Qg", False)])
def test_the_embedded_broker_is_known_by_its_cluster(cluster: str, embedded: bool) -> None:
    assert topics.is_embedded(Described(cluster_id=cluster)) is embedded
