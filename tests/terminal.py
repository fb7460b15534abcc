"""A command on a terminal of its own, and what is on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ALTERNATE_ON, ALTERNATE_OFF = "\x1b[?1049h", "\x1b[?1049l"
CURSOR_OFF, CURSOR_ON = "\x1b[?25l", "\x1b[?25h"

_HOME = "\x1b[H"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
_PATIENCE = 60.0
_TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """The terminal of a process; `output` is all that was written to it so far."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self.output = ""
        self._master = master

    @property
    def screen(self) -> list[str]:
        """The lines that were drawn last, without colours and the blanks behind them."""
        return [line.rstrip() for line in _CONTROL.sub("", self.output.split(_HOME)[-1]).split("\n")]

    @property
    def settings(self) -> list[Any]:
        """How the terminal treats its input and output."""
        return termios.tcgetattr(self._master)

    def resize(self, columns: int, rows: int) -> None:
        """Give it another size, of which the process is told."""
        _resize(self._master, columns, rows)

    def type(self, text: str) -> None:
        """What a user types; Ctrl-C is `\\x03`."""
        os.write(self._master, text.encode())

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Read until it holds, or fail with what is on the screen and where the process is."""
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if self._read():
                continue
            code = self.process.poll()
            assert code is None, f"ended with {code}: {self.output[-4000:]}"
            if time.monotonic() > deadline:
                self.process.send_signal(signal.SIGABRT)  # `faulthandler` writes the stack of each thread
                self.exit_code()
                pytest.fail(self.output[-8000:])

    def exit_code(self) -> int:
        """Read until the process has ended."""
        while self._read() or self.process.poll() is None:
            pass
        return self.process.wait()

    def _read(self) -> bool:
        """Take what was written, for which it waits a little; whether there was something."""
        ready, _, _ = select.select([self._master], [], [], 0.1)
        found = os.read(self._master, 65536) if ready else b""
        self.output += found.decode(errors="replace")
        return bool(found)


@contextmanager
def on_terminal(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    columns: int = 80,
    rows: int = 24,
    cwd: Path | None = None,
) -> Iterator[Terminal]:
    """Start a command on a terminal of this size; killed in the end if it still runs.

    The size is the terminal's own: readline, which pytest loads, leaves COLUMNS and LINES in what xdist's workers
    inherit.
    """
    inherited = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
    master, slave = pty.openpty()
    _resize(master, columns, rows)
    process = subprocess.Popen(
        [sys.executable, "-c", _TAKE_TERMINAL, *command],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**inherited, "TERM": "xterm-256color", "PYTHONFAULTHANDLER": "1"},
        cwd=cwd,
        start_new_session=True,
    )
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)


def _resize(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
