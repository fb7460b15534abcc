"""A demo as a command: interrupted, failed or done, it says so and exits accordingly."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Protocol

import click

from braidstream import logs
from braidstream.cli.errors import interruptible
from braidstream.demo.show import Show
from braidstream.errors import BraidstreamError, SettingsError


class Summary(Protocol):
    """What a demo says in the end."""

    @property
    def failure(self) -> str | None:
        """Why the demo counts as failed; None when it went well."""
        ...

    def as_lines(self) -> Sequence[str]:
        """The summary for people."""
        ...

    def as_json(self) -> Mapping[str, object]:
        """The summary for programs."""
        ...


def play(run: Callable[[Show], Summary], *, as_json: bool, plain: bool = False) -> None:
    """Run a demo and print its summary: the lines, and with `as_json` one JSON object alone on stdout.

    While it runs a terminal shows a dashboard, unless the demo is to be `plain`.

    SIGTERM ends it as Ctrl-C does: everything that was started is stopped. Exits with 1 when it failed, 2 when a
    setting or file is wrong, and 130 when it was interrupted.
    """
    logs.configure("warning", "auto")
    show = Show(plain=plain)
    try:
        with interruptible(), closing(show):
            summary = run(show)
    except KeyboardInterrupt:
        show.line("interrupted; every process of the demo is stopped")
        sys.exit(130)
    except BraidstreamError as error:
        show.line(f"Error: {error}")
        sys.exit(2 if isinstance(error, SettingsError) else 1)
    for line in summary.as_lines():
        click.echo(line, err=as_json)
    if as_json:
        click.echo(json.dumps(summary.as_json()))
    if summary.failure is not None:
        show.line(f"Error: {summary.failure}")
        sys.exit(1)
