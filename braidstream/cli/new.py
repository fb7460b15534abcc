"""`braidstream new`: the files that a part of a project begins with."""

from __future__ import annotations

import json
import keyword
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from braidstream.cli import plugins
from braidstream.cli.consumer_files import OUTCOME, consumer_files, left_out
from braidstream.errors import SettingsError
from braidstream.models.folder import is_model


@click.group()
def new() -> None:
    """Write what a part of a project begins with."""


@new.command()
@click.argument("name")
@plugins.pipeline_option
@click.option(
    "--example",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A JSON object of the event's fields, for the test; what it lacks is made up.",
)
def consumer(name: str, pipeline_name: str | None, example: Path | None) -> None:
    """Write a model's consumer, the package NAME, into the current folder: features, training, worker and test.

    Its features are the numbers of the pipeline's event. It works as it is, and is there to be changed. Nothing that
    is there already is written over.

    \b
    Examples:
      braidstream new consumer speed
      braidstream new consumer violence --pipeline moderation.pipeline:MODERATION
    """
    folder = Path(name)
    _check_name(name, folder)
    address = plugins.address(pipeline_name)
    pipeline = plugins.pipeline(address)
    files = consumer_files(name, address, pipeline, _read(example) if example is not None else {})
    try:
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_text(content)
    except OSError as error:
        raise SettingsError(f"{folder} cannot be written: {error.strerror}") from error
    fields = ", ".join(pipeline.subjects.event_type.model.model_fields)
    wrote = f"Wrote {', '.join(f'{name}/{file}' for file in files)}, for the pipeline {address}."
    click.echo("\n".join(filter(None, (wrote, left_out(pipeline)))))
    click.echo(
        "\nNext:\n"
        f"  python -m pytest {name}\n"
        f"  python -m {name}.train FILE\n"
        f"  python -m {name}\n"
        "\n"
        f"FILE is parquet, CSV or NDJSON, with the columns {fields}, and {OUTCOME}: the number to predict."
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise SettingsError(f"{path} is no JSON object of an event's fields")
    return found


def _check_name(name: str, folder: Path) -> None:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise SettingsError(f"{name!r} is no name for a Python package: take letters, digits and _, as in speed")
    for there in (folder, folder.with_suffix(".py")):
        if there.exists():
            raise SettingsError(f"{there.absolute()} is there already, and nothing was written: choose another name")
    if is_model(model := Path("models") / name):
        raise SettingsError(f"{model} holds a model of that name: choose another name, or move the model away")
    # Of a module that is running, such as __main__, find_spec may fail.
    if name in sys.modules or find_spec(name) is not None:
        raise SettingsError(f"{name} would hide the module that there is: choose another name")
