"""The command line's frame: its commands, those that packages bring, the choice of a pipeline, what errors become."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from braidstream.cli import main, plugins
from braidstream.errors import SettingsError
from braidstream.health import HealthFile
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
    "command", [(), ("topics",), ("topics", "create"), ("topics", "check"), ("health",), ("tail",)], ids=" ".join
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
        (["health"], "HEALTH_FILE"),
    ],
)
def test_wrong_arguments_get_a_sentence(arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEALTH_FILE", raising=False)
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


def test_a_worker_that_is_ready_is_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "health.json"
    HealthFile(path).beat(None, 2)
    monkeypatch.setenv("HEALTH_FILE", str(path))
    result = braidstream("health")
    assert result.exit_code == 0
    assert result.output.startswith("ready")
    assert "2 partitions" in result.output


@pytest.mark.parametrize("state", [None, "no json", "{}"])
def test_a_worker_without_a_state_is_unhealthy(tmp_path: Path, state: str | None) -> None:
    path = tmp_path / "health.json"
    if state is not None:
        path.write_text(state)
    result = braidstream("health", "--file", str(path))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: the worker has not written its state")


@pytest.mark.parametrize(
    ("age", "waiting_for", "sentence"),
    [(3600, None, "has not turned for 36"), (0, "the changelog", "not ready: the changelog")],
)
def test_a_worker_that_is_not_ready_is_unhealthy(
    tmp_path: Path, age: float, waiting_for: str | None, sentence: str
) -> None:
    path = tmp_path / "health.json"
    HealthFile(path, clock=lambda: time.time() - age).beat(waiting_for, 2)
    result = braidstream("health", "--file", str(path))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert sentence in result.stderr


def test_health_loads_no_kafka_client() -> None:
    """It runs every few seconds beside every worker."""
    program = "import sys, braidstream.cli.health; print({'confluent_kafka', 'pydantic', 'rich'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
