"""`braidstream broker`: a shell, or one command, with librdkafka's embedded broker for as long as it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from braidstream.embedded import EmbeddedBroker
from braidstream.errors import SettingsError

_BASHRC = """
[ -r ~/.bashrc ] && . ~/.bashrc
[ -n "$VIRTUAL_ENV" ] && PATH="$VIRTUAL_ENV/bin:$PATH"
true
"""
"""What an interactive bash reads: the user's own file may put another Python before that of the active environment."""

_READ_THEIR_OWN = frozenset({"fish", "zsh"})
"""Shells that cannot be told so; the user is."""

_ENDS_SHELLS = signal.SIGHUP
"""An interactive shell takes no notice of SIGTERM."""


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND]...")
def broker(command: tuple[str, ...]) -> None:
    """Run COMMAND, or a shell, with an embedded broker that lives as long as it does.

    For trying things out with nothing installed but Python. KAFKA_BOOTSTRAP_SERVERS and what else the programs have to
    be told are set for COMMAND. The broker keeps no transactions (at least once), and its topics end with it. Exits
    with the code of COMMAND.

    \b
    Examples:
      braidstream broker
      braidstream broker python -m producer trips.parquet
    """
    with EmbeddedBroker() as embedded:
        if not command:
            click.echo(f"A shell with librdkafka's broker at {embedded.bootstrap_servers}; `exit` ends both.", err=True)
        sys.exit(_run(command, embedded.environment) if command else _shell(embedded.environment))


def _shell(environment: Mapping[str, str]) -> int:
    shell = os.environ.get("SHELL", "/bin/sh")
    name = Path(shell).name
    if name in _READ_THEIR_OWN and os.environ.get("VIRTUAL_ENV"):
        click.echo("Activate your virtual environment again if `python` is another here.", err=True)
    if name != "bash":
        return _run((shell,), environment, _ENDS_SHELLS)
    with tempfile.NamedTemporaryFile("w", prefix="braidstream-", suffix=".bashrc") as file:
        file.write(_BASHRC)
        file.flush()
        return _run((shell, "--rcfile", file.name), environment, _ENDS_SHELLS)


def _run(command: tuple[str, ...], environment: Mapping[str, str], ending: signal.Signals = signal.SIGTERM) -> int:
    """The command's exit code. Ctrl-C is the command's to hear; SIGTERM ends it, by the signal `ending`."""
    interrupt = signal.signal(signal.SIGINT, lambda *_: None)
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        process = subprocess.Popen(command, env={**os.environ, **environment})  # noqa: S603 - the user's
        signal.signal(signal.SIGTERM, lambda *_: process.send_signal(ending))
        code = process.wait()
    except OSError as error:
        raise SettingsError(f"{command[0]} cannot be run: {error.strerror}") from error
    finally:
        signal.signal(signal.SIGTERM, terminate)
        signal.signal(signal.SIGINT, interrupt)
    return code if code >= 0 else 128 - code
