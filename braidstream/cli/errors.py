"""What a command line makes of an error: a sentence and an exit code, never a traceback."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import click

from braidstream.errors import BraidstreamError, SettingsError


class Refused(click.ClickException):
    """Something must be mended first: exit code 2."""

    exit_code = 2


@contextmanager
def raising(number: int, error: type[BaseException]) -> Iterator[None]:
    """A signal, unless it is ignored, raises this error.

    Python's own Ctrl-C and `sys.exit` in a handler raise what has no instance yet: when that comes in one of
    confluent-kafka's callbacks, as those of a broker that is away, the call ends with a SystemError instead.
    """

    def leave(*_: object) -> None:
        raise error

    before = signal.getsignal(number)
    if before is not signal.SIG_IGN:
        signal.signal(number, leave)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise `KeyboardInterrupt`, as in `raising`."""
    with raising(signal.SIGINT, KeyboardInterrupt), raising(signal.SIGTERM, KeyboardInterrupt):
        yield


@contextmanager
def in_sentences(ctx: click.Context) -> Iterator[None]:
    """Exit with 2 on a `SettingsError`, 1 on any other of this package's errors, 130 on Ctrl-C and on SIGTERM."""
    try:
        with interruptible():
            yield
    except SettingsError as error:
        raise Refused(str(error)) from error
    except BraidstreamError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        ctx.exit(128 + signal.SIGINT)


def sigterm_ends() -> AbstractContextManager[None]:
    """SIGTERM ends what would go on for ever: exit code 0, once everything that is open is closed."""
    return raising(signal.SIGTERM, SystemExit)
