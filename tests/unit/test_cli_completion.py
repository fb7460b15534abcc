"""What a shell completes, by the script that `braidstream completion` prints, in a real bash."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import command_line

pytestmark = pytest.mark.skipif(not Path("/bin/bash").exists(), reason="completes in bash")

COMMANDS = "from braidstream.cli import main; main(prog_name='braidstream')"


@pytest.fixture
def braidstream(tmp_path: Path) -> Path:
    """The folder of a program of this name, of this checkout."""
    program = tmp_path / "braidstream"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c {shlex.quote(COMMANDS)} "$@"\n')
    program.chmod(0o755)
    return tmp_path


def completed(folder: Path, typed: str, **settings: str) -> list[str]:
    """What bash offers after this was typed and Tab pressed; nothing else may be printed."""
    words = [*shlex.split(typed), *([""] if typed.endswith(" ") else [])]
    script = f"""
        eval "$(braidstream completion bash)"
        COMP_WORDS=({" ".join(map(shlex.quote, words))}) COMP_CWORD={len(words) - 1}
        $(complete -p braidstream | sed 's/.*-F \\([^ ]*\\).*/\\1/') braidstream
        printf '%s\n' "${{COMPREPLY[@]}}"
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "BRAIDSTREAM_"))}
    environment = {**kept, **settings, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["/bin/bash", "--norc", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("braidstream ta", ["tail"]),
        ("braidstream topics ", ["check", "create"]),
        ("braidstream tail dec", ["decision_state", "decisions"]),
        ("braidstream tail --pipeline rides ride", ["ride_started"]),
        ("braidstream tail --pipeline nowhere:X ride", []),
        ("braidstream tail decisions --from", ["--from-beginning"]),
        ("braidstream tail --pipeline ", ["rides"]),
        ("braidstream completion ", ["bash", "zsh", "fish"]),
    ],
)
def test_commands_options_topics_and_pipelines_are_completed(braidstream: Path, typed: str, offered: list[str]) -> None:
    assert completed(braidstream, typed) == offered


def test_groups_of_a_broker_that_does_not_answer_are_not_waited_for(braidstream: Path) -> None:
    assert completed(braidstream, "braidstream dlq list --group ", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1") == []


@pytest.mark.parametrize(("shell", "begins"), [("zsh", "#compdef braidstream"), ("fish", "function _braidstream_")])
def test_other_shells_have_a_script(shell: str, begins: str) -> None:
    done = command_line.run("completion", shell)
    assert done.returncode == 0
    assert done.stdout.startswith(begins)
