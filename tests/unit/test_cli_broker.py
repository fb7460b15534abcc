"""`braidstream broker`: a command, or a shell, with an embedded broker of its own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

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

    assert (done.returncode, done.stdout) == (
        0,
        "Created ride_started, predictions, decisions, decision_state, dead_letters with 4 partitions each.\n",
    )


def test_a_command_that_there_is_not() -> None:
    done = command_line.run("broker", "no-such-command-of-a-test")

    assert done.returncode == 2
    assert done.stderr == "Error: no-such-command-of-a-test cannot be run: No such file or directory\n"


WAIT = """
import signal, sys
def stop(*_):
    print("stopped", flush=True)
    sys.exit(5)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
signal.pause()
"""


def test_a_command_ends_when_its_broker_is_told_to() -> None:
    with command_line.started("broker", sys.executable, "-c", WAIT, settings={}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        output, _ = process.communicate(timeout=60)

    assert (process.returncode, output) == (5, "stopped\n")


def test_a_shell_ends_when_its_broker_is_told_to(tmp_path: Path) -> None:
    executable(tmp_path / "bash", BASH)
    reader, writer = os.pipe()
    os.write(writer, b"echo ready\n")
    with command_line.started(
        "broker", settings={"SHELL": str(tmp_path / "bash"), "HOME": str(tmp_path)}, stdin=reader
    ) as process:
        os.close(reader)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        process.communicate(timeout=60)
    os.close(writer)

    assert process.returncode == 128 + signal.SIGHUP


def test_without_a_command_it_is_a_shell() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"echo at $KAFKA_BOOTSTRAP_SERVERS; exit 3\n")
    os.close(writer)
    with command_line.started("broker", settings={"SHELL": "/bin/sh"}, stdin=reader) as process:
        output, errors = process.communicate(timeout=60)

    address = output.removeprefix("at ").strip()
    assert errors == f"A shell with librdkafka's broker at {address}; `exit` ends both.\n"
    assert process.returncode == 3


BASH = f"""#!{sys.executable}
import os, sys
os.setsid()
os.execv({shutil.which("bash")!r}, ["bash", *sys.argv[1:], "-i"])
"""
"""Interactive without a terminal; it leaves alone the one that the tests may be run at."""


def shell(tmp_path: Path, name: str, content: str, **settings: str) -> tuple[str, str]:
    """What a shell of this name, a program with this content, prints when it is told to run `python`."""
    executable(tmp_path / name, content)
    reader, writer = os.pipe()
    os.write(writer, b"python; exit\n")
    os.close(writer)
    environment = {"SHELL": str(tmp_path / name), "HOME": str(tmp_path), **settings}
    with command_line.started("broker", settings=environment, stdin=reader) as process:
        os.close(reader)
        return process.communicate(timeout=60)


def executable(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o755)


def test_bash_keeps_the_python_of_the_environment_and_the_rest_of_what_it_reads(tmp_path: Path) -> None:
    executable(tmp_path / "other" / "python", "#!/bin/sh\necho the other one")
    executable(tmp_path / "venv" / "bin" / "python", '#!/bin/sh\necho "that of the environment, $MINE"')
    (tmp_path / ".bashrc").write_text(f"PATH={tmp_path / 'other'}:$PATH; export MINE='and mine'; PS1='my prompt> '\n")

    output, errors = shell(tmp_path, "bash", BASH, VIRTUAL_ENV=str(tmp_path / "venv"))

    assert output == "that of the environment, and mine\n"
    assert "my prompt> " in errors


def test_bash_without_an_environment_takes_the_python_of_its_user(tmp_path: Path) -> None:
    executable(tmp_path / "other" / "python", "#!/bin/sh\necho the other one")
    (tmp_path / ".bashrc").write_text(f"PATH={tmp_path / 'other'}:$PATH\n")

    output, _ = shell(tmp_path, "bash", BASH, VIRTUAL_ENV="")

    assert output == "the other one\n"


@pytest.mark.parametrize(("environment", "is_told"), [({"VIRTUAL_ENV": "/venv"}, True), ({"VIRTUAL_ENV": ""}, False)])
def test_users_of_other_shells_are_told_to_activate_again(
    tmp_path: Path, environment: dict[str, str], is_told: bool
) -> None:
    _, errors = shell(tmp_path, "zsh", "#!/bin/sh", **environment)

    assert ("Activate your virtual environment again" in errors) == is_told


def test_a_worker_whose_topics_are_missing_says_how_to_make_them() -> None:
    done = command_line.run(
        "broker", sys.executable, "-m", "decision_service", settings={"EXPECTED_MODELS": "speed", "LOG_FORMAT": "json"}
    )

    assert done.returncode == 1
    assert "Unknown topic or partition; create it with `braidstream topics create --pipeline" in done.stderr
