"""The exit codes that docs/desk.md lists, by processes that end with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing

import pytest
from confluent_kafka import TopicPartition

from braidstream.cli.errors import raising
from braidstream.embedded import EmbeddedBroker
from braidstream.settings import Settings
from braidstream.streaming import clients
from tests import command_line
from tests.documents import ROOT, table
from tests.terminal import CURSOR_OFF, CURSOR_ON, on_terminal

NOWHERE = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "BROKER_TIMEOUT": "1"}


@pytest.fixture(scope="module")
def settings() -> Iterator[Mapping[str, str]]:
    """An embedded broker with the topics of the rides."""
    with EmbeddedBroker() as broker:
        created = command_line.run("topics", "create", settings=broker.environment)
        assert created.returncode == 0, created.stderr
        yield broker.environment


def exit_code(program: str, *arguments: str, settings: Mapping[str, str]) -> int:
    """That of `python -m <program> <arguments>`, which is no traceback's."""
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        env=command_line.environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode


def test_every_code_is_listed() -> None:
    assert [row[0] for row in table(ROOT / "docs" / "desk.md", "| code | meaning |")] == ["0", "1", "2", "130"]


@pytest.mark.parametrize("program", ["decision_service", "consumers.duration"])
def test_a_worker_that_is_asked_for_help_tells_its_settings_and_starts_nothing(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", program, "--help"],
        env=command_line.environment({}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nBATCH_SIZE\n    Most records taken at once.\n" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_done(settings: Mapping[str, str]) -> None:
    assert command_line.run("tail", "decisions", "--to-end", settings=settings).returncode == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_stopped(settings: Mapping[str, str], number: signal.Signals, code: int) -> None:
    with command_line.started("tail", "decisions", settings=settings) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("Following decisions")
        process.send_signal(number)
        assert process.wait(30) == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gives_the_terminal_back(number: signal.Signals) -> None:
    command = [*command_line.COMMAND, "trace", "ride-1"]
    with on_terminal(command, command_line.environment({**NOWHERE, "BROKER_TIMEOUT": "60"})) as terminal:
        terminal.wait_for(lambda: "asking the broker" in terminal.output)
        terminal.process.send_signal(number)
        assert terminal.exit_code() == 130
    assert terminal.output.rindex(CURSOR_ON) > terminal.output.rindex(CURSOR_OFF)


def test_failed() -> None:
    assert command_line.run("topics", "check", settings=NOWHERE).returncode == 1
    assert exit_code("decision_service", settings=NOWHERE) == 1


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        (("tail", "decisions", "--no-such-option"), {}),
        (("tail", "decisions", "--to-end"), {"TOPIC_PREFIX": "no-such-topic-"}),
        (("topics", "check"), {"PARTITIONS": "many"}),
    ],
    ids=["option", "topic", "setting"],
)
def test_to_be_mended(settings: Mapping[str, str], arguments: tuple[str, ...], changed: dict[str, str]) -> None:
    assert command_line.run(*arguments, settings={**settings, **changed}).returncode == 2


def test_programs_that_have_something_to_be_mended(settings: Mapping[str, str]) -> None:
    assert exit_code("producer", "no-such-file.parquet", settings=settings) == 2
    assert exit_code("consumers.duration", settings={**settings, "MODEL_URI": "no-such-model"}) == 2


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_while_the_broker_is_away_ends_a_read(number: int, error: type[BaseException]) -> None:
    """Where librdkafka's lines are logged, a client's call loses an exception that has no instance."""
    with closing(clients.reader(Settings.load(NOWHERE), "read")) as consumer:
        consumer.assign([TopicPartition("rides", 0, 0)])
        threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
        with raising(number, error), pytest.raises(error):
            list(iter(lambda: consumer.consume(500, 0.2), None))
