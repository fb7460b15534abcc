"""`braidstream dlq` on real Kafka, as users run it."""

from __future__ import annotations

import json
import os
import pty
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from braidstream.cli.letters import LetterBox
from braidstream.cli.reading import TopicReader
from braidstream.errors import FencedError
from braidstream.settings import Settings
from braidstream.streaming import clients
from braidstream.streaming.dead_letters import PREFIX, dead_letter
from braidstream.streaming.ports import Headers
from braidstream.streaming.replay import Replay
from braidstream.writer import open_writer
from rides.pipeline import RIDES
from tests import command_line
from tests.integration.ride_pipeline import RidePipeline
from tests.unit.events import ride

pytestmark = pytest.mark.docker

BAD_ZONE = 74


@pytest.fixture
def settings(kafka: str, topic_prefix: str) -> dict[str, str]:
    """The topics of the pipeline, with three partitions and no worker."""
    found = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "TOPIC_PREFIX": topic_prefix, "PARTITIONS": "3", "BROKER_TIMEOUT": "30"}
    create_topics(found)
    return found


def create_topics(settings: dict[str, str]) -> None:
    created = command_line.run("topics", "create", settings=settings)
    assert created.returncode == 0, created.stderr


def dlq(settings: dict[str, str], *arguments: str, code: int = 0) -> str:
    done = command_line.run("dlq", *arguments, settings=settings)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def listed(settings: dict[str, str], *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in dlq(settings, "list", "--json", *arguments).splitlines()]


def tailed(settings: dict[str, str], topic: str) -> list[dict[str, Any]]:
    done = command_line.run("tail", topic, "--to-end", "--json", settings=settings)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def write_letters(
    settings: dict[str, str], count: int, *, group: str = "duration", value: bytes = b"x", **changes: bytes | None
) -> None:
    """As many dead letters of rides 0, 1, …; `changes` are other headers by Kafka Connect's names, None for none."""
    prefix = settings["TOPIC_PREFIX"]
    producer = Producer({"bootstrap.servers": settings["KAFKA_BOOTSTRAP_SERVERS"]})
    for number in range(count):
        source = Message(
            topic=f"{prefix}ride_started", partition=number % 3, offset=number, key=b"%d" % number, value=value
        )
        topic, partition, key, content, headers = dead_letter(
            f"{prefix}dead_letters", source, ValueError("no"), f"{prefix}{group}"
        )
        producer.produce(topic, content, key, partition=partition, headers=list(changed(headers, changes)))
    assert producer.flush(30) == 0


def changed(headers: Headers, changes: dict[str, bytes | None]) -> Headers:
    named = {f"{PREFIX}{name}": value for name, value in changes.items()}
    found = [(name, named.get(name, value)) for name, value in headers]
    return [(name, value) for name, value in found if value is not None]


# With workers


def committed_to_the_end(pipeline: RidePipeline, group: str) -> bool:
    """Whether a group has read all of ride_started."""
    config = {"bootstrap.servers": pipeline.environment["KAFKA_BOOTSTRAP_SERVERS"]}
    consumer = Consumer({**config, "group.id": pipeline.settings.named(group)})
    name = pipeline.settings.named(RIDES.subjects.name)
    partitions = [TopicPartition(name, number) for number in range(pipeline.settings.partitions)]
    offsets = {at.partition: max(at.offset, 0) for at in consumer.committed(partitions, timeout=20)}
    ends = {at.partition: consumer.get_watermark_offsets(at, timeout=20)[1] for at in partitions}
    consumer.close()
    # What was sent back was so in a transaction, whose end is a record too.
    return all(ends[number] - offsets[number] <= 1 for number in ends)


def send(pipeline: RidePipeline, zones: Sequence[int]) -> None:
    with open_writer(RIDES.subjects, pipeline.settings) as writer:
        for number, zone in enumerate(zones):
            writer.send(ride(f"ride-{number}", pickup_zone=zone))


def test_a_mended_worker_processes_what_is_sent_back_and_nobody_else_does(pipeline: RidePipeline, models: Path) -> None:
    environment, prefix = pipeline.environment, pipeline.settings.topic_prefix
    broken = pipeline.start(
        "tests.integration.touchy_duration", FAILING_ZONE=str(BAD_ZONE), MODEL_URI=str(models / "duration")
    )
    pipeline.start("consumers.tip")
    pipeline.start("decision_service", DECISION_DEADLINE="10")
    pipeline.wait_until_started()
    send(pipeline, [BAD_ZONE, 75, BAD_ZONE, 75])
    pipeline.wait_for(lambda: pipeline.decided() == 4, "decisions, two of them partial")

    letters = {letter["key"]: letter for letter in listed(environment)}
    assert letters.keys() == {"ride-0", "ride-2"}
    one = letters["ride-0"]
    assert (one["group"], one["topic"], one["exception"]) == (
        f"{prefix}duration",
        f"{prefix}ride_started",
        "builtins.LookupError",
    )
    shown = dlq(environment, "show", one["letter"])
    assert '  "ride_id": "ride-0",' in shown.splitlines()
    assert "no features for zone 74" in shown
    assert "touchy_duration.py" in shown
    planned = dlq(environment, "replay", "--reason", "zone 74", "--dry-run")
    assert f"{one['letter']}  to {prefix}ride_started [{one['partition']}] for {prefix}duration, attempt 1: " in planned
    assert len(pipeline.records(RIDES.subjects.name)) == 4

    pipeline.stop(broken)
    pipeline.start("consumers.duration")
    assert "Sent back 2 of 2." in dlq(environment, "replay", "--reason", "zone 74", "--yes")
    pipeline.wait_for(lambda: len(pipeline.records(RIDES.decisions.name)) == 6, "two revisions")
    for group in ("duration", "tip", "decision"):
        pipeline.wait_for(lambda group=group: committed_to_the_end(pipeline, group), f"all of it read by {group}")  # type: ignore[misc]

    assert len(pipeline.records(RIDES.subjects.name)) == 6
    assert {len(found) for found in pipeline.predictions().values()} == {1}
    assert len(pipeline.predictions()) == 8
    revisions = {name: [(d.revision, d.complete) for d in made] for name, made in pipeline.decisions().items()}
    late, whole = [(0, False), (1, True)], [(0, True)]
    assert revisions == {"ride-0": late, "ride-1": whole, "ride-2": late, "ride-3": whole}
    assert all(letter["replayed"] for letter in listed(environment))
    again = dlq(environment, "replay", "--reason", "zone 74", "--yes")
    assert again == "2 left out: sent back already\nNothing to be sent back.\n"
    assert len(pipeline.records(RIDES.subjects.name)) == 6


def test_poison_is_a_dead_letter_of_three_groups_and_comes_back_to_each_up_to_the_limit(pipeline: RidePipeline) -> None:
    environment, prefix = pipeline.environment, pipeline.settings.topic_prefix
    for module in ("consumers.duration", "consumers.tip", "decision_service"):
        pipeline.start(module)
    producer = Producer({"bootstrap.servers": environment["KAFKA_BOOTSTRAP_SERVERS"]})
    producer.produce(f"{prefix}ride_started", b"hello", b"poison", partition=2)
    assert producer.flush(20) == 0
    pipeline.wait_for(lambda: len(listed(environment)) == 3, "three dead letters")
    groups = {f"{prefix}{name}" for name in ("duration", "tip", "decision")}
    assert {letter["group"] for letter in listed(environment)} == groups
    counts = [json.loads(line) for line in dlq(environment, "list", "--summary", "--json").splitlines()]
    assert {(count["group"], count["letters"], count["stage"]) for count in counts} == {
        (group, 1, "VALUE_CONVERTER") for group in groups
    }
    [of_tip] = listed(environment, "--group", "tip")
    assert json.loads(dlq(environment, "show", of_tip["letter"], "--json"))["undecoded"]["base64"] == "aGVsbG8="

    assert "Sent back 1 of 1." in dlq(environment, "replay", "--group", "tip", "--yes")
    pipeline.wait_for(lambda: len(listed(environment)) == 4, "the same dead letter again")
    for group in ("duration", "tip", "decision"):
        pipeline.wait_for(lambda group=group: committed_to_the_end(pipeline, group), f"all of it read by {group}")  # type: ignore[misc]
    attempts = Counter((letter["group"], letter["attempts"]) for letter in listed(environment))
    assert attempts == Counter({(group, 0): 1 for group in groups} | {(f"{prefix}tip", 1): 1})
    left = dlq(environment, "replay", "--group", "tip", "--max-attempts", "1", "--yes", code=1)
    assert "left out: it was sent back 1 times already (--max-attempts)" in left
    assert "Nothing to be sent back." in left


# Without workers


def test_filters_choose_what_is_sent_back(settings: dict[str, str]) -> None:
    write_letters(settings, 6, group="duration")
    write_letters(settings, 3, group="tip")
    places = {letter["letter"]: letter for letter in listed(settings)}
    assert len(listed(settings, "--group", "tip", "--since", "10m")) == 3
    assert listed(settings, "--until", "10m") == []
    first, second, *_ = sorted(places)
    dlq(settings, "replay", "--at", first, "--at", second, "--yes")
    assert Counter(letter["letter"] for letter in listed(settings) if letter["replayed"]) == Counter([first, second])
    dlq(settings, "replay", "--group", "duration", "--yes")
    dlq(settings, "replay", "--all", "--yes")
    assert Counter(record["key"] for record in tailed(settings, "ride_started")) == Counter(
        {"0": 2, "1": 2, "2": 2, "3": 1, "4": 1, "5": 1}
    )
    assert "there is no dead letter" in dlq(settings, "replay", "--at", "0:9999", "--yes", code=1)


def test_two_replays_at_once_send_everything_once(settings: dict[str, str]) -> None:
    write_letters(settings, 3000)
    arguments = ("dlq", "replay", "--all", "--yes")
    with (
        command_line.started(*arguments, settings=settings) as first,
        command_line.started(*arguments, settings=settings) as second,
    ):
        ended = [(*process.communicate(timeout=120), process.returncode) for process in (first, second)]
    assert 0 in [code for *_, code in ended]
    for output, errors, code in ended:
        assert code == 0 or "Error: another replay of" in errors, output + errors
    dlq(settings, "replay", "--all", "--yes")
    keys = Counter(record["key"] for record in tailed(settings, "ride_started"))
    assert keys == Counter(str(number) for number in range(3000))


def test_a_replay_that_begins_ends_the_one_before(settings: dict[str, str]) -> None:
    write_letters(settings, 4)
    kafka = {"bootstrap.servers": settings["KAFKA_BOOTSTRAP_SERVERS"]}
    loaded = Settings(kafka=kafka, topic_prefix=settings["TOPIC_PREFIX"])
    topic = loaded.named(RIDES.dead_letters)
    with closing(clients.reader(loaded, "test")) as consumer:
        letters = list(LetterBox(TopicReader(consumer, loaded, topic)).letters())

    def begun() -> Replay:
        replay = Replay(clients.transactional_producer(loaded, "dlq", f"{topic}-replay"), topic, timeout=30)
        replay.begin()
        return replay

    first = begun()
    first.send(letters[:2])
    second = begun()
    with pytest.raises(FencedError, match=r"another replay of .* has begun"):
        first.send(letters[2:])
    first.close()
    second.send(letters[2:])
    second.close()
    assert Counter(record["key"] for record in tailed(settings, "ride_started")) == Counter("0123")
    assert all(letter["replayed"] for letter in listed(settings))


def test_what_cannot_be_sent_back_is_named_and_the_rest_goes_on(settings: dict[str, str]) -> None:
    settings = {**settings, "TOPIC_PREFIX": f"{settings['TOPIC_PREFIX']}small-"}
    small = NewTopic(f"{settings['TOPIC_PREFIX']}ride_started", 3, 1, config={"max.message.bytes": "2000"})
    admin = AdminClient({"bootstrap.servers": settings["KAFKA_BOOTSTRAP_SERVERS"]})
    admin.create_topics([small])[small.topic].result(20)
    create_topics({**settings, "KAFKA_BATCH_SIZE": "2000"})
    write_letters(settings, 5)
    write_letters(settings, 1, topic=b"gone", group="gone")
    write_letters(settings, 1, partition=b"99")
    write_letters(settings, 1, stage=None, topic=None)
    write_letters(settings, 1, value=os.urandom(5000))
    said = dlq(settings, "replay", "--all", "--yes", code=1)
    for reason in (
        "left out: there is no topic gone that workers of this pipeline read",
        f"left out: {settings['TOPIC_PREFIX']}ride_started has no partition 99",
        "left out: its headers do not say which topic, partition and group it is from",
        "left out: the broker refuses it: ",
        "Sent back 5 of 6.",
    ):
        assert reason in said
    assert Counter(record["key"] for record in tailed(settings, "ride_started")) == Counter("01234")
    assert sum(letter["replayed"] for letter in listed(settings)) == 5


@pytest.mark.parametrize(("answer", "sent"), [("n\n", 0), ("y\n", 3)])
def test_on_a_terminal_it_asks_first(settings: dict[str, str], answer: str, sent: int) -> None:
    write_letters(settings, 3)
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer.encode())
        with command_line.started("dlq", "replay", "--all", settings=settings, stdin=theirs) as process:
            output, errors = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert "3 to be sent back to" in output
    assert process.returncode == (0 if sent else 1), errors
    assert len(tailed(settings, "ride_started")) == sent


def test_the_notes_are_seen_by_tail(settings: dict[str, str]) -> None:
    write_letters(settings, 1)
    dlq(settings, "replay", "--all", "--yes")
    letter, note = tailed(settings, "dead_letters")
    assert (letter["key"], note["key"], note["value"]) == ("0", "0", None)
    assert note["headers"]["braidstream.replay.letter"] == "0:0"
    [record] = tailed(settings, "ride_started")
    assert record["headers"] == note["headers"]
    assert "is no dead letter: it notes that 0:0 was sent back" in dlq(settings, "show", "0:1", code=2)
