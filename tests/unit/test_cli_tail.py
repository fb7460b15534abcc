"""`braidstream tail` and `topics` on the embedded broker, in processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator, Mapping

import pytest
from confluent_kafka import Producer

from braidstream.avro import write
from braidstream.cli import reading
from braidstream.cli.reading import read
from braidstream.embedded import PARTITIONS, EmbeddedBroker, appear
from braidstream.errors import UnavailableError
from braidstream.settings import Settings
from braidstream.streaming import clients
from braidstream.streaming.ports import Partition
from rides.pipeline import RIDES
from tests import command_line

RIDES_THERE = 20
NOWHERE = {"KAFKA_BOOTSTRAP_SERVERS": "localhost:1", "BROKER_TIMEOUT": "1"}


@pytest.fixture
def settings() -> Iterator[dict[str, str]]:
    """An embedded broker on which 20 rides, one dead letter and an empty topic are found under a prefix."""
    with EmbeddedBroker() as broker:
        appear(
            Producer({"bootstrap.servers": broker.bootstrap_servers}),
            [f"x.{topic}" for topic in ("ride_started", "dead_letters", "decisions")],
        )
        found = {**broker.environment, "TOPIC_PREFIX": "x.", "LOG_FORMAT": "console"}
        send(found, [f"ride-{number}" for number in range(RIDES_THERE)])
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
        producer.produce(
            "x.dead_letters", b"\x1b[2Jjunk", b"k", headers=[("__connect.errors.stage", b"VALUE_CONVERTER")]
        )
        assert producer.flush(10) == 0
        yield found


def send(settings: Mapping[str, str], ride_ids: list[str]) -> None:
    schema = RIDES.subjects.event_type.latest
    producer = Producer({"bootstrap.servers": settings["KAFKA_BOOTSTRAP_SERVERS"]})
    ride = {"pickup_zone": 1, "dropoff_zone": 2, "pickup_at": 0, "trip_distance": 1.5, "passenger_count": None}
    for ride_id in ride_ids:
        producer.produce("x.ride_started", write(schema.local_id, schema, {**ride, "ride_id": ride_id}), ride_id)
    assert producer.flush(10) == 0


def tail(settings: Mapping[str, str], *arguments: str) -> list[dict[str, object]]:
    done = command_line.run("tail", *arguments, "--json", settings=settings)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def await_following(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    assert process.stderr.readline() == "Following x.ride_started; Ctrl-C stops.\n"


def test_everything_up_to_the_end_of_every_partition(settings: dict[str, str]) -> None:
    records = tail(settings, "ride_started", "--to-end")
    assert {record["key"] for record in records} == {f"ride-{number}" for number in range(RIDES_THERE)}
    assert len(records) == RIDES_THERE
    assert len({record["partition"] for record in records}) > 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("decisions",), "x.decisions has no record.\n"),
        (("ride_started", "--key", "ride\t"), "x.ride_started has no record with the key ride\\t.\n"),
    ],
)
def test_nothing_to_show_is_said(settings: dict[str, str], arguments: tuple[str, ...], said: str) -> None:
    done = command_line.run("tail", *arguments, "--to-end", "--json", settings=settings)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", said)


def test_a_limit(settings: dict[str, str]) -> None:
    assert len(tail(settings, "ride_started", "--from-beginning", "--limit", "3")) == 3


def test_only_one_key(settings: dict[str, str]) -> None:
    send(settings, ["ride-7"])
    records = tail(settings, "ride_started", "--to-end", "--key", "ride-7")
    assert [record["key"] for record in records] == ["ride-7", "ride-7"]
    assert tail(settings, "ride_started", "--to-end", "--key", "ride") == []


def test_a_pipe_gets_plain_lines(settings: dict[str, str]) -> None:
    done = command_line.run("tail", "dead_letters", "--to-end", settings=settings)
    parts = done.stdout.rstrip("\n").split("\t")
    assert parts[2] == "k"
    assert parts[3].startswith("undecoded: not in Confluent's wire format")
    assert json.loads(parts[4]) == {"__connect.errors.stage": "VALUE_CONVERTER"}
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_only_what_comes_from_now_on_until_a_signal(
    settings: dict[str, str], number: signal.Signals, code: int
) -> None:
    with command_line.started("tail", "ride_started", "--json", settings=settings) as process:
        await_following(process)
        send(settings, ["new"])
        assert json.loads(next_line(process))["key"] == "new"
        process.send_signal(number)
        assert process.communicate(timeout=20) == ("", "")
        assert process.returncode == code


def test_a_reader_that_goes_away_is_no_error(settings: dict[str, str]) -> None:
    with command_line.started("tail", "ride_started", "--from-beginning", settings=settings) as process:
        await_following(process)
        next_line(process)
        assert process.stdout is not None
        process.stdout.close()
        while process.poll() is None:
            send(settings, ["another"])
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_topic_that_is_not_there_is_told_with_those_that_are(settings: dict[str, str]) -> None:
    done = command_line.run("tail", "nope", settings=settings)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: there is no topic x.nope at ")
    assert done.stderr.endswith("the topics are: x.dead_letters, x.decisions, x.ride_started\n")


def test_an_end_that_is_not_reached_is_not_waited_for_for_ever(settings: dict[str, str]) -> None:
    consumer = clients.reader(Settings.load(settings), "tail")
    starts = dict.fromkeys(range(PARTITIONS), 0)
    try:
        with pytest.raises(UnavailableError, match=r"partitions \[2\] of x.ride_started were not read to their end"):
            list(read(consumer, "x.ride_started", starts, {**starts, 2: 1000}, timeout=1.0))
    finally:
        consumer.close()


@pytest.mark.parametrize("command", [["tail", "decisions"], ["topics", "create"], ["topics", "check"]])
def test_a_broker_that_does_not_answer_is_told(command: list[str]) -> None:
    done = command_line.run(*command, settings=NOWHERE)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: no broker answers at localhost:1 within 1 s")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("setting", "limit"), [({}, "0.5"), ({"BROKER_TIMEOUT": "1.5"}, "1.5")])
def test_a_person_does_not_wait_as_long_as_a_worker(
    monkeypatch: pytest.MonkeyPatch, setting: dict[str, str], limit: str
) -> None:
    monkeypatch.setattr(reading, "_PATIENCE", 0.5)
    settings = Settings.load({"KAFKA_BOOTSTRAP_SERVERS": "localhost:1", **setting})
    with pytest.raises(UnavailableError, match=f"at localhost:1 within {limit} s"):
        reading.metadata_of(settings)


def test_topics_of_the_embedded_broker_are_made_and_told() -> None:
    with EmbeddedBroker() as broker:
        settings = {**broker.environment, "TOPIC_PREFIX": "x."}
        appear(Producer({"bootstrap.servers": broker.bootstrap_servers}), ["x.decisions"])
        before = command_line.run("topics", "check", settings=settings)
        made = command_line.run("topics", "create", settings=settings)
        after = command_line.run("topics", "check", settings=settings)

    assert before.returncode == 2
    assert "topic x.predictions is missing: create it with `braidstream topics create" in before.stderr
    assert (made.returncode, made.stdout) == (
        0,
        "Created x.ride_started, x.predictions, x.decision_state, x.dead_letters with 4 partitions each.\n"
        "x.decisions: there already.\n",
    )
    assert (after.returncode, after.stdout) == (
        0,
        "x.ride_started, x.predictions, x.decisions, x.decision_state, x.dead_letters: as they have to be, with 4 "
        "partitions each.\n",
    )


def test_ends_that_no_broker_tells_are_asked_for_as_long_as_the_settings_say() -> None:
    settings = Settings(kafka={"bootstrap.servers": "127.0.0.1:1"}, broker_timeout=0.3)
    with pytest.raises(UnavailableError, match=r"within 0.3 s \(BROKER_TIMEOUT\) where these topics end: a, b"):
        clients.ends_of(settings, [Partition(topic, number) for topic in ("b", "a") for number in (0, 1)])
