"""The command line's frame: its commands, those that packages bring, the choice of a pipeline, what errors become."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from braidstream.cli import main, plugins
from braidstream.errors import SettingsError
from braidstream.streaming.observer import Turn
from braidstream.watching.watcher import Watcher
from rides.pipeline import RIDES
from tests import command_line

Install = Callable[[dict[str, str]], None]

PLUGIN = """
import click
from braidstream.errors import FatalError

@click.command()
@click.option("--fail", is_flag=True)
@click.option("--interrupt", is_flag=True)
def hello(fail, interrupt):
    "Say hello."
    if interrupt:
        raise KeyboardInterrupt
    if fail:
        raise FatalError("it went wrong")
    click.echo("hello")

not_a_command = not_a_pipeline = 5
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package with these entry points: their text by group."""

    def install(entry_points: dict[str, str]) -> None:
        (tmp_path / "plugin_of_a_test.py").write_text(PLUGIN)
        info = tmp_path / "plugin_of_a_test-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-a-test\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("\n".join(f"[{group}]\n{text}" for group, text in entry_points.items()))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "plugin_of_a_test", raising=False)

    return install


def braidstream(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="braidstream")


@pytest.mark.parametrize(
    "command",
    [
        *((), ("topics",), ("topics", "create"), ("topics", "check"), ("health",), ("tail",)),
        *(("dlq",), ("dlq", "list"), ("dlq", "show"), ("dlq", "replay")),
    ],
    ids=" ".join,
)
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    result = braidstream(*command, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: {' '.join(['braidstream', *command])}")
    assert command == ("topics",) or "Example" in result.output


def test_the_version_is_told() -> None:
    assert braidstream("--version").output == f"braidstream, version {version('braidstream')}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nope"], "No such command 'nope'"),
        (["topics", "drop"], "No such command 'drop'"),
        (["tail"], "Missing argument 'TOPIC'"),
        (["tail", "decisions", "--limit", "0"], "0 is not in the range"),
        (["tail", "decisions", "--limit", "many"], "'many' is not a valid integer"),
        (["tail", "a", "b"], "unexpected extra argument"),
        (["tail", "decisions", "--nope"], "No such option"),
        (["health"], "HTTP_PORT"),
        (["health", "--port", "0"], "0 is not in the range"),
    ],
)
def test_wrong_arguments_get_a_sentence(arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HTTP_PORT", raising=False)
    result = braidstream(*arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_a_command_of_another_package_is_listed_and_called(install: Install) -> None:
    install({plugins.COMMANDS: "hello = plugin_of_a_test:hello"})
    assert "Say hello." in braidstream("--help").output
    assert braidstream("hello").output == "hello\n"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module_of_a_test:hello", "ModuleNotFoundError: No module named 'no_such_module_of_a_test'"),
        ("plugin_of_a_test:absent", "AttributeError"),
        ("plugin_of_a_test:not_a_command", "it is no click command"),
    ],
)
def test_a_command_that_cannot_be_loaded_says_so_and_breaks_no_other(install: Install, value: str, reason: str) -> None:
    install({plugins.COMMANDS: f"broken = {value}\nhello = plugin_of_a_test:hello"})
    listed = braidstream("--help")
    assert (listed.exit_code, "(cannot be loaded)" in listed.output) == (0, True)
    assert braidstream("hello").output == "hello\n"
    called = braidstream("broken", "--some", "option")
    assert called.exit_code == 2
    assert called.stderr.startswith(f"Error: the command broken ({value}) cannot be loaded: {reason}")


def test_errors_of_any_command_are_a_sentence_and_an_exit_code(install: Install) -> None:
    install({plugins.COMMANDS: "hello = plugin_of_a_test:hello"})
    failed = braidstream("hello", "--fail")
    assert (failed.exit_code, failed.stderr) == (1, "Error: it went wrong\n")
    interrupted = braidstream("hello", "--interrupt")
    assert (interrupted.exit_code, interrupted.output) == (130, "")


def test_a_missing_setting_is_named() -> None:
    result = command_line.run("tail", "decisions")
    assert result.returncode == 2
    assert result.stderr.startswith("Error: KAFKA_BOOTSTRAP_SERVERS is not set")


def test_a_wrong_setting_is_named() -> None:
    result = command_line.run("topics", "check", settings={"PARTITIONS": "none"})
    assert result.returncode == 2
    assert result.stderr.startswith("Error: wrong settings: PARTITIONS")


def test_the_only_pipeline_needs_no_choice() -> None:
    assert plugins.pipeline(None) is RIDES
    assert plugins.pipeline("rides") is RIDES


def test_of_several_pipelines_one_is_chosen(install: Install) -> None:
    install({plugins.PIPELINES: "other = plugin_of_a_test:not_a_pipeline"})
    with pytest.raises(SettingsError, match=r"choose one with --pipeline \(other, rides\)"):
        plugins.pipeline(None)
    assert plugins.pipeline("rides") is RIDES


def test_a_pipeline_that_is_not_installed_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="no pipeline videos is installed: there is rides"):
        plugins.pipeline("videos")


@pytest.mark.parametrize(
    ("value", "reason"),
    [("plugin_of_a_test:not_a_pipeline", "is no"), ("no_such_module_of_a_test:X", "cannot be loaded: ModuleNotFound")],
)
def test_what_is_no_pipeline_is_refused(install: Install, value: str, reason: str) -> None:
    install({plugins.PIPELINES: f"other = {value}"})
    with pytest.raises(SettingsError, match=f"the pipeline other .* {reason}"):
        plugins.pipeline("other")


@contextmanager
def worker(host: str = "127.0.0.1", **turn: str | None) -> Iterator[str]:
    """The port of a worker that is ready but for what is said here."""
    watcher = Watcher(stuck_after=60, stalled_after=60, metrics=True, now=lambda: 0)
    ready: dict[str, str | None] = {"waiting_for": None, "failing": None}
    watcher.turned(Turn(assigned=True, partitions=2, **(ready | turn)))
    with watcher:
        yield watcher.serve(host, 0, {}).rpartition(":")[2]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_worker_that_is_ready_is_healthy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with worker(host) as port:
        monkeypatch.setenv("HTTP_PORT", port)
        monkeypatch.setenv("HTTP_HOST", host)
        result = braidstream("health")
    assert (result.exit_code, result.output) == (0, "ready, with 2 partitions\n")


def test_a_worker_that_is_not_ready_is_unhealthy() -> None:
    with worker(waiting_for="restoring partitions [1]", failing="no transaction") as port:
        result = braidstream("health", "--port", port)
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: the worker is not ready: restored: restoring partitions [1]; committing: no transaction\n"
    )


def test_a_worker_that_does_not_answer_is_unhealthy() -> None:
    with worker() as port:
        pass
    result = braidstream("health", "--port", port)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: no worker answers at http://127.0.0.1:{port} (HTTP_HOST, HTTP_PORT)")


def test_health_loads_no_kafka_client() -> None:
    """It runs every few seconds beside every worker."""
    heavy = {"confluent_kafka", "prometheus_client", "pydantic", "rich"}
    program = f"import sys, braidstream.cli.health; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
