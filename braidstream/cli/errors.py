"""What a command line makes of an error: a sentence and an exit code, never a traceback."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from braidstream.errors import BraidstreamError, SettingsError


class Refused(click.ClickException):
    """Something must be mended first: exit code 2."""

    exit_code = 2


@contextmanager
def in_sentences(ctx: click.Context) -> Iterator[None]:
    """Exit with 2 on a `SettingsError`, 1 on any other of this package's errors, 130 on Ctrl-C."""
    try:
        yield
    except SettingsError as error:
        raise Refused(str(error)) from error
    except BraidstreamError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        ctx.exit(128 + signal.SIGINT)


@contextmanager
def sigterm_ends() -> Iterator[None]:
    """SIGTERM ends what would go on for ever: exit code 0, once everything that is open is closed."""

    def leave(*_: object) -> None:
        sys.exit(0)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
