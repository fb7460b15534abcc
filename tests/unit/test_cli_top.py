"""`braidstream top` on the embedded broker, in processes of their own: on a terminal and in a pipe."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Producer

from braidstream import avro
from braidstream.avro import AvroSchema, Codec, EventType, LocalSchemas
from braidstream.cli.following import MOST_A_SECOND, Following
from braidstream.cli.groups import Groups
from braidstream.cli.records import Decoder
from braidstream.embedded import EmbeddedBroker, appear
from braidstream.registry import schemas_for
from braidstream.settings import Settings
from braidstream.streaming import clients, topics
from braidstream.streaming.ports import Partition
from rides.pipeline import RIDES
from schemas.decision import Decision
from schemas.decision_state import DecisionState, Outcome
from tests import command_line
from tests.terminal import ALTERNATE_OFF, ALTERNATE_ON, CURSOR_OFF, CURSOR_ON, Terminal, on_terminal

TOP = [*command_line.COMMAND, "top"]


@pytest.fixture
def settings() -> Iterator[dict[str, str]]:
    """An embedded broker with the topics of the rides, empty."""
    with EmbeddedBroker() as broker:
        found = dict(broker.environment)
        appear(_producer(found), [spec.name for spec in topics.specs(RIDES, Settings.load(found))])
        yield found


def _producer(settings: Mapping[str, str]) -> Producer:
    return Producer({"bootstrap.servers": settings["KAFKA_BOOTSTRAP_SERVERS"]})


def write(settings: Mapping[str, str], topic: str, subject: str, value: bytes | None, at: datetime) -> None:
    producer = _producer(settings)
    producer.produce(topic, value, subject, partition=0, timestamp=round(at.timestamp() * 1000))
    assert producer.flush(10) == 0


def decide(settings: Mapping[str, str], subject: str, *, after: float = 0.15, complete: bool = True) -> None:
    """Write a subject's event and, so many seconds later by the records' times, its decision."""
    now = datetime.now(UTC)
    codec = Codec(RIDES.decisions.event_type, schemas_for(Settings.load(settings), [RIDES.decisions.event_type]), "d")
    write(settings, "ride_started", subject, b"an event", now)
    value = codec.encode(decision(subject, complete=complete))
    write(settings, "decisions", subject, value, now + timedelta(seconds=after))


def decision(subject: str, *, complete: bool = True) -> Decision:
    now = datetime.now(UTC)
    return Decision(
        subject_id=subject,
        revision=0,
        action="review",
        reasons=["it is far"],
        complete=complete,
        missing=[] if complete else ["tip"],
        evidence=[],
        opened_at=now,
        decided_at=now,
    )


def set_state(settings: Mapping[str, str], subject: str, *, is_closed: bool) -> None:
    now = datetime.now(UTC)
    event_type = RIDES.decision_state.event_type
    state = DecisionState(
        subject_id=subject,
        event=b"an event",
        expected=["duration"],
        evidence=[],
        first_seen_at=now,
        expires_at=now + timedelta(seconds=30),
        outcome=Outcome(revision=0, action="review", complete=True) if is_closed else None,
    )
    codec = Codec(event_type, schemas_for(Settings.load(settings), [event_type]), "s")
    write(settings, "decision_state", subject, codec.encode(state), now)


def views(process: subprocess.Popen[str], condition: Callable[[Any], bool]) -> Any:
    """The first JSON object for which the condition holds."""
    assert process.stdout is not None
    for line in process.stdout:
        if condition(found := json.loads(line)):
            return found
    raise AssertionError("it ended before")


def topic(view: Any, name: str) -> Any:
    return next(row for row in view["topics"] if row["name"] == name)


@contextmanager
def top_on_terminal(settings: Mapping[str, str], columns: int = 80, rows: int = 24) -> Iterator[Terminal]:
    with on_terminal([*TOP, "--every", "0.5"], command_line.environment(settings), columns=columns, rows=rows) as shown:
        yield shown


def test_what_is_written_is_told(settings: dict[str, str]) -> None:
    set_state(settings, "open", is_closed=False)
    set_state(settings, "closed", is_closed=False)
    set_state(settings, "closed", is_closed=True)
    with command_line.started("top", "--json", "--every", "0.5", settings=settings) as process:
        first = views(process, lambda view: view["open"]["exact"])
        for number in range(4):
            decide(settings, f"ride-{number}", complete=number > 0)
        write(settings, "dead_letters", "ride-9", b"junk", datetime.now(UTC))
        found = views(process, lambda view: len(view["decisions"]) == 4 and topic(view, "dead_letters")["offsets"])

    assert first["open"]["decisions"] == 1
    assert topic(first, "decision_state")["offsets"] == 3
    assert first["decisions"] == []
    assert topic(found, "decisions")["offsets"] == 4
    assert topic(found, "decisions")["rate"] > 0
    assert found["latency_ms"] == {"p50": 150.0, "p99": 150.0}
    assert found["partial"] == 0.25
    assert [decision["subject_id"] for decision in found["decisions"]] == ["ride-3", "ride-2", "ride-1", "ride-0"]
    assert found["groups"] == []
    assert found["problem"] is None


def test_the_latest_decisions_of_a_topic_at_rest(settings: dict[str, str]) -> None:
    decide(settings, "ride-1")
    with command_line.started("top", "--every", "0.5", settings=settings) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "ride-1" in line)
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=20)
    assert "ride_started 0/s" in line
    assert line.endswith(" · open 0 · latency - · partial 0.0% · ride-1 review, complete: it is far\n")
    assert "\x1b" not in line + rest
    assert (process.returncode, errors) == (0, "")


def test_partitions_with_too_many_records_still_have_their_latest_decisions(settings: dict[str, str]) -> None:
    loaded = Settings.load(settings)
    schemas = schemas_for(loaded, [RIDES.decisions.event_type])
    partitions = [Partition("decisions", 0), Partition("decision_state", 0)]
    asked = Groups(clients.admin(loaded))
    with closing(Following(loaded, RIDES, Decoder(schemas))) as following:
        for number in range(2):
            decide(settings, f"ride-{number}")
            following.adjust(asked.logs(partitions), 4, 2.0 * MOST_A_SECOND)
            assert not following.numbers
            deadline = time.monotonic() + 20
            while len(following.subjects.decided.latest(9)) <= number:
                assert time.monotonic() < deadline
                following.read(0.05)
        found = [decision.subject_id for decision in following.subjects.decided.latest(9)]
        assert found == ["ride-1", "ride-0"], "each once"
        following.adjust(asked.logs(partitions), 4, 0.0)
        assert list(following.numbers) == [0, 1, 2, 3]


def test_decisions_of_a_later_version_are_shown(settings: dict[str, str]) -> None:
    schema = json.loads(RIDES.decisions.event_type.latest.text)
    schema["fields"].append({"name": "later", "type": "string", "default": ""})
    later = AvroSchema.from_text(json.dumps(schema))
    datum = {**decision("ride-1").model_dump(), "later": "new"}
    write(settings, "decisions", "ride-1", avro.write(later.local_id, later, datum), datetime.now(UTC))

    loaded = Settings.load(settings)
    decode = Decoder(LocalSchemas(EventType(Decision, (later,))))
    with closing(Following(loaded, RIDES, decode)) as following:
        following.adjust(Groups(clients.admin(loaded)).logs([Partition("decisions", 0)]), 4, 0.0)
        deadline = time.monotonic() + 20
        while not following.subjects.decided.latest(1):
            assert time.monotonic() < deadline, following.problem
            following.read(0.05)


def test_a_screen_that_is_given_back(settings: dict[str, str]) -> None:
    decide(settings, "ride-1")
    with top_on_terminal(settings) as terminal:
        before = terminal.settings
        terminal.wait_for(lambda: "ride-1" in "".join(terminal.screen))
        screen = terminal.screen
        terminal.type("\x03")
        code = terminal.exit_code()
        after = terminal.settings
    assert code == 130
    assert len(screen) == 24
    assert screen[0].startswith(f"braidstream top · {settings['KAFKA_BOOTSTRAP_SERVERS']}")
    assert after == before
    for on, off in ((ALTERNATE_ON, ALTERNATE_OFF), (CURSOR_OFF, CURSOR_ON)):
        assert terminal.output.count(on) == terminal.output.count(off) == 1
        assert terminal.output.index(on) < terminal.output.index("ride-1") < terminal.output.index(off)
    assert "Traceback" not in terminal.output


def test_another_size_while_it_runs(settings: dict[str, str]) -> None:
    with top_on_terminal(settings) as terminal:
        terminal.wait_for(lambda: len(terminal.screen) == 24)
        terminal.resize(50, 12)
        terminal.wait_for(lambda: len(terminal.screen) == 12)
        assert max(map(len, terminal.screen)) <= 50
        terminal.resize(120, 40)
        terminal.wait_for(lambda: len(terminal.screen) == 40)


@pytest.mark.parametrize("variable", ["TERM=dumb", "NO_COLOR=1"])
def test_what_the_terminal_asks_for(settings: dict[str, str], variable: str) -> None:
    environment = command_line.environment(settings)
    command = ["env", variable, *TOP, "--every", "0.5"]
    with on_terminal(command, environment) as terminal:
        terminal.wait_for(lambda: "ride_started" in terminal.output and "\n" in terminal.output)
    assert (ALTERNATE_ON in terminal.output) == variable.startswith("NO_COLOR")
    assert "\x1b[31m" not in terminal.output


def test_plain_lines_on_a_terminal(settings: dict[str, str]) -> None:
    with on_terminal([*TOP, "--plain", "--every", "0.5"], command_line.environment(settings)) as terminal:
        terminal.wait_for(lambda: terminal.output.count("ride_started") > 1)
    assert "\x1b" not in terminal.output


def test_a_broker_that_stops_answering_and_comes_back() -> None:
    tell = "import os, time; print(os.environ['KAFKA_BOOTSTRAP_SERVERS'], flush=True); time.sleep(300)"
    with command_line.started("broker", sys.executable, "-c", tell, settings={}) as broker:
        assert broker.stdout is not None
        settings = {"KAFKA_BOOTSTRAP_SERVERS": broker.stdout.readline().strip()}
        appear(_producer(settings), [spec.name for spec in topics.specs(RIDES, Settings.load(settings))])
        with top_on_terminal(settings) as terminal:
            terminal.wait_for(lambda: any(line.split()[1:3] == ["0", "0"] for line in terminal.screen))
            broker.send_signal(signal.SIGSTOP)
            terminal.wait_for(lambda: terminal.screen[1].startswith("no answer of the broker for"))
            assert terminal.screen[3].split() == ["ride_started", "-", "0"]
            broker.send_signal(signal.SIGCONT)
            terminal.wait_for(lambda: "no answer" not in terminal.screen[1])
            decide(settings, "ride-1")
            terminal.wait_for(lambda: "ride-1" in "".join(terminal.screen))
        broker.send_signal(signal.SIGTERM)
        broker.wait(20)


def test_a_registry_that_does_not_answer_is_told_and_holds_nothing_up(settings: dict[str, str]) -> None:
    write(settings, "decisions", "ride-1", b"\x00\x00\x00\x00\x05", datetime.now(UTC))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with command_line.started(
            "top", "--json", "--every", "0.5", settings={**settings, "SCHEMA_REGISTRY_URL": url}
        ) as process:
            times = [datetime.fromisoformat(views(process, condition)["at"]) for condition in (bool, has_problem)]
    assert times[1] - times[0] < timedelta(seconds=8)


def has_problem(view: Any) -> bool:
    return "schema 5 has to be looked up" in (view["problem"] or "")


def test_no_broker_and_no_topics_are_told() -> None:
    nowhere = command_line.run("top", settings={"KAFKA_BOOTSTRAP_SERVERS": "localhost:1", "BROKER_TIMEOUT": "1"})
    with EmbeddedBroker() as broker:
        empty = command_line.run("top", settings=broker.environment)
    both = command_line.run("top", "--json", "--plain", settings={})

    assert (nowhere.returncode, nowhere.stderr.splitlines()[-1][:49]) == (
        1,
        "Error: no broker answers at localhost:1 within 1 ",
    )
    assert empty.returncode == 2
    assert "`braidstream topics create`" in empty.stderr
    assert both.returncode == 2
