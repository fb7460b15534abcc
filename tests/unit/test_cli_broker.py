"""`braidstream broker`: a command, or a shell, with an embedded broker of its own."""

from __future__ import annotations

import os
import sys

from tests import command_line

ASK = """
import os, sys
from confluent_kafka.admin import AdminClient
answer = AdminClient({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]}).list_topics(timeout=10)
print(len(answer.brokers), os.environ["PROCESSING_GUARANTEE"], os.environ["PARTITIONS"], sys.argv[1:])
sys.exit(7)
"""


def test_a_command_has_a_broker_and_its_exit_code_counts() -> None:
    done = command_line.run("broker", sys.executable, "-c", ASK, "--from-beginning")

    assert done.stdout == "1 at_least_once 4 ['--from-beginning']\n"
    assert done.returncode == 7


def test_topics_are_made_on_it_and_read_from_it() -> None:
    code = (
        "braidstream() { "
        f'{sys.executable} -c "from braidstream.cli import main; main(prog_name=\'braidstream\')" "$@"; }}\n'
        "braidstream topics create && braidstream tail decisions --to-end"
    )
    done = command_line.run("broker", "sh", "-c", code)

    assert (done.returncode, done.stdout) == (0, "This is the embedded broker: topics appear by themselves.\n")


def test_a_command_that_there_is_not() -> None:
    done = command_line.run("broker", "no-such-command-of-a-test")

    assert done.returncode == 2
    assert done.stderr == "Error: no-such-command-of-a-test cannot be run: No such file or directory\n"


def test_without_a_command_it_is_a_shell() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"echo at $KAFKA_BOOTSTRAP_SERVERS; exit 3\n")
    os.close(writer)
    with command_line.started("broker", settings={"SHELL": "/bin/sh"}, stdin=reader) as process:
        output, errors = process.communicate(timeout=60)

    address = output.removeprefix("at ").strip()
    assert errors == f"A shell with librdkafka's broker at {address}; `exit` ends both.\n"
    assert process.returncode == 3
