"""`braidstream doctor`: what is wrong, and the command that mends it."""

from __future__ import annotations

import json
import logging
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from braidstream import logs
from braidstream.cli import plugins
from braidstream.cli.records import printable
from braidstream.doctor.case import Case
from braidstream.doctor.examination import examine
from braidstream.doctor.findings import Finding
from braidstream.doctor.settings import DoctorSettings

_WIDTH = 79
_INDENT = " " * 9
_COLORS = {"ok": "green", "warning": "yellow", "wrong": "red"}


@click.command()
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object a line.")
@plugins.pipeline_option
def doctor(*, is_json: bool, pipeline_name: str | None) -> None:
    """Look for what is wrong with broker, registry, topics, schemas, groups and models, and say how to mend it.

    Changes nothing, and goes on past what it cannot check. Call it with the settings of the workers, in the folder that
    they are started in: it looks at EXPECTED_MODELS, DECISION_DEADLINE, MODEL_URI and PROCESSING_GUARANTEE, and at
    models/ there. Takes three seconds longer when groups are behind, to see whether they move. Exits with 0 when
    nothing is wrong, warnings or not, and with 1 when something is.

    \b
    Examples:
      braidstream doctor
      braidstream doctor --json | jq -r 'select(.level == "wrong").mend[]'
    """
    settings = DoctorSettings.load()
    logs.configure(settings.log_level, settings.log_format)
    # What the clients complain of is told as findings.
    logs.client_logger().setLevel(logging.CRITICAL)
    case = Case(settings, plugins.pipeline(pipeline_name), pipeline_name, Path.cwd())
    levels = []
    for finding in examine(case):
        levels.append(finding.level)
        for line in _json(finding) if is_json else _lines(finding):
            click.echo(line)
    if not is_json:
        click.echo(f"{levels.count('wrong')} wrong, {levels.count('warning')} to be looked at.")
    sys.exit(1 if "wrong" in levels else 0)


def _json(finding: Finding) -> Iterator[str]:
    yield json.dumps(finding._asdict())


def _lines(finding: Finding) -> Iterator[str]:
    """The finding in words, and below it what mends it, whole: a command that is broken up cannot be copied."""
    text = printable(f"{finding.check}: {finding.says}")
    wrapped = textwrap.wrap(text, _WIDTH - len(_INDENT), break_long_words=False, break_on_hyphens=False)
    level = click.style(f"{finding.level:{len(_INDENT)}}", fg=_COLORS[finding.level])
    yield level + f"\n{_INDENT}".join(wrapped)
    for command in finding.mend:
        yield f"{_INDENT}  $ {printable(command)}"
