"""What the installed packages bring: pipelines and further commands, by their entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, TypeVar

import click

from braidstream.errors import SettingsError

if TYPE_CHECKING:
    from braidstream.pipelines import Pipeline

COMMANDS = "braidstream.commands"
"""Entry points of this group are click commands."""

PIPELINES = "braidstream.pipelines"
"""Entry points of this group are `Pipeline` objects."""

F = TypeVar("F", bound=Callable[..., Any])


def command_names() -> list[str]:
    """The names of the commands that other packages bring."""
    return [entry.name for entry in entry_points(group=COMMANDS)]


def command(name: str) -> click.Command | None:
    """The command of this name; one that cannot be loaded says so when it is called. None when there is none."""
    for entry in entry_points(group=COMMANDS, name=name):
        try:
            found = entry.load()
        except Exception as error:
            return _broken(entry, f"{type(error).__name__}: {error}")
        return found if isinstance(found, click.Command) else _broken(entry, "it is no click command")
    return None


def pipeline(name: str | None) -> Pipeline[Any]:
    """The installed pipeline of this name, or the only one; raises `SettingsError` naming those that there are."""
    from braidstream.pipelines import Pipeline

    installed = {entry.name: entry for entry in entry_points(group=PIPELINES)}
    if not installed:
        raise SettingsError(f"no pipeline is installed: a package brings one as an entry point of {PIPELINES}")
    names = ", ".join(sorted(installed))
    if name is None and len(installed) > 1:
        raise SettingsError(f"several pipelines are installed: choose one with --pipeline ({names})")
    entry = installed.get(name) if name is not None else next(iter(installed.values()))
    if entry is None:
        raise SettingsError(f"no pipeline {name} is installed: there is {names}")
    try:
        found = entry.load()
    except Exception as error:
        raise SettingsError(
            f"the pipeline {entry.name} ({entry.value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, Pipeline):
        raise SettingsError(f"the pipeline {entry.name} ({entry.value}) is no braidstream.Pipeline")
    return found


def pipeline_option(function: F) -> F:
    """The option `--pipeline`, as the argument `pipeline_name`."""
    return click.option(
        "--pipeline", "pipeline_name", metavar="NAME", help="The pipeline, where several are installed."
    )(function)


def _broken(entry: EntryPoint, reason: str) -> click.Command:
    def refuse() -> None:
        raise SettingsError(f"the command {entry.name} ({entry.value}) cannot be loaded: {reason}")

    return click.Command(
        entry.name,
        callback=refuse,
        short_help="(cannot be loaded)",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
