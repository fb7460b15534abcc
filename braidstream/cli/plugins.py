"""Pipelines and commands that this package has not: brought by installed packages, or in the current folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from braidstream.errors import SettingsError

if TYPE_CHECKING:
    from braidstream.pipelines import Pipeline

COMMANDS = "braidstream.commands"
"""Entry points of this group are click commands."""

PIPELINES = "braidstream.pipelines"
"""Entry points of this group are `Pipeline` objects."""

PIPELINE_VARIABLE = "BRAIDSTREAM_PIPELINE"
"""What `--pipeline` is taken from where it is not given."""

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
    """The pipeline of this name or at this `module:ATTRIBUTE`, or the only one that is installed.

    The module is imported from the current directory or from what is installed. Raises `SettingsError` saying what
    there is instead.
    """
    if name is not None and ":" in name:
        return _at(name)
    return _loaded(_chosen(name))


def _chosen(name: str | None) -> EntryPoint:
    if name is not None and "." in name and not entry_points(group=PIPELINES, name=name):
        raise SettingsError(
            f"--pipeline {name} is not module:ATTRIBUTE, but a module: {_advice(_imported(name, name))}"
        )
    installed = _installed()
    names = ", ".join(sorted(installed))
    if name is None and len(installed) > 1:
        raise SettingsError(f"several pipelines are installed: choose one with --pipeline ({names})")
    if name is not None and name not in installed:
        raise SettingsError(
            f"no pipeline {name} is installed: there is {names}, or give --pipeline module:ATTRIBUTE, as in "
            f"{name}.pipeline:{name.upper()}"
        )
    return installed[name] if name is not None else next(iter(installed.values()))


def address(name: str | None) -> str:
    """Where a pipeline is, as `module:ATTRIBUTE`; else as `pipeline`."""
    if name is not None and ":" in name:
        return name
    return _chosen(name).value


def pipeline_with(topic: str, name: str | None) -> Pipeline[Any]:
    """As `pipeline`; where several are installed and none is named, the one that has this topic."""
    if name is not None or len(installed := _installed()) == 1:
        return pipeline(name)
    found = {}
    for entry in installed.values():
        one = _loaded(entry)
        if topic in _topics(one):
            found[entry.name] = one
    if not found:
        names = ", ".join(sorted(installed))
        raise SettingsError(f"no installed pipeline has a topic {topic}: choose one with --pipeline ({names})")
    if len(found) > 1:
        raise SettingsError(f"{topic} is a topic of {', '.join(sorted(found))}: choose one of them with --pipeline")
    return next(iter(found.values()))


def topic_names(name: str | None) -> list[str]:
    """The topics, dead letters too, of the pipeline of this name, or of every one that is installed."""
    found = [_loaded(entry) for entry in _installed().values()] if name is None else [pipeline(name)]
    return sorted({topic for one in found for topic in _topics(one)})


def _topics(one: Pipeline[Any]) -> set[str]:
    return {*(own.name for own in one.topics), one.dead_letters}


def _installed() -> dict[str, EntryPoint]:
    installed = {entry.name: entry for entry in entry_points(group=PIPELINES)}
    if not installed:
        raise SettingsError(
            f"no pipeline is installed: give --pipeline module:ATTRIBUTE, or install a package with an entry point of "
            f"{PIPELINES}"
        )
    return installed


def _loaded(entry: EntryPoint) -> Pipeline[Any]:
    from braidstream.pipelines import Pipeline

    try:
        found = entry.load()
    except Exception as error:
        raise SettingsError(
            f"the pipeline {entry.name} ({entry.value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, Pipeline):
        raise SettingsError(f"the pipeline {entry.name} ({entry.value}) is no braidstream.Pipeline")
    return found


def _at(address: str) -> Pipeline[Any]:
    from braidstream.pipelines import Pipeline

    name, _, attribute = address.partition(":")
    if not attribute.isidentifier():
        raise _no_address(address)
    module = _imported(name, address)
    found = getattr(module, attribute, None)
    if isinstance(found, Pipeline):
        return found
    if found is None:
        raise SettingsError(f"the module {name} has no {attribute}: {_advice(module)}")
    raise SettingsError(f"{address} is no braidstream.Pipeline but a {type(found).__name__}: {_advice(module)}")


def _advice(module: ModuleType) -> str:
    from braidstream.pipelines import Pipeline

    there = [f"{module.__name__}:{name}" for name, value in vars(module).items() if isinstance(value, Pipeline)]
    return f"it has {', '.join(there)}" if there else "it has no pipeline"


def _no_address(address: str) -> SettingsError:
    return SettingsError(f"--pipeline {address} is not module:ATTRIBUTE, as in moderation.pipeline:MODERATION")


def _imported(name: str, address: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise _no_address(address)
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise SettingsError(f"the pipeline {address} cannot be loaded: {error}") from error
        raise SettingsError(
            f"there is no module {error.name}, neither in {folder} nor installed: --pipeline {address} is for the "
            "folder that the project is in"
        ) from error
    except Exception as error:
        raise SettingsError(f"the pipeline {address} cannot be loaded: {type(error).__name__}: {error}") from error


def _complete(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [entry.name for entry in entry_points(group=PIPELINES) if entry.name.startswith(incomplete)]


def pipeline_option(function: F) -> F:
    """The option `--pipeline`, as the argument `pipeline_name`."""
    return click.option(
        "--pipeline",
        "pipeline_name",
        metavar="PIPELINE",
        envvar=PIPELINE_VARIABLE,
        show_envvar=True,
        shell_complete=_complete,
        help="An installed pipeline by its name, or one of this folder as module:ATTRIBUTE.",
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
