"""Worker processes that belong to this one: started together, and gone when it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from braidstream.errors import FatalError
from braidstream.watching.client import ask_by_log

STOP_TIMEOUT = 15.0
_LAST_LINES = 5
_WATCHED = {"HTTP_PORT": "0", "HTTP_HOST": "127.0.0.1", "LOG_LEVEL": "info"}
"""At any free port of this machine alone, which the log tells."""


@dataclass(frozen=True)
class Child:
    """One worker: `python -m <module>`, with its log in a file."""

    module: str
    log: Path
    process: subprocess.Popen[bytes]

    def partitions(self) -> int:
        """How many partitions the worker owns; 0 while it is not ready."""
        answer = ask_by_log(self.log)
        return answer.partitions if answer is not None and answer.ready else 0


class Processes:
    """Starts workers, and stops them when the context is left, however it is left."""

    def __init__(self, folder: Path) -> None:
        """Logs are kept in this folder."""
        self._folder = folder
        self._children: list[Child] = []
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _stop(self._children)

    def start(self, module: str, settings: Mapping[str, str]) -> None:
        """Start `python -m <module>` with these settings on top of this process's own, answering over HTTP."""
        log = self._folder / f"{module}-{self._started}.log"
        self._started += 1
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - this interpreter, and a module of the caller's
                [sys.executable, "-m", module],
                env={**os.environ, **settings, **_WATCHED},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._children.append(Child(module, log, process))

    def stop(self, module: str) -> None:
        """Stop the workers of this module; nothing is expected of them any more."""
        _stop([child for child in self._children if child.module == module])
        self._children = [child for child in self._children if child.module != module]

    def partitions(self, module: str) -> int:
        """How many partitions the ready workers of this module own together."""
        return sum(child.partitions() for child in self._children if child.module == module)

    def require_alive(self) -> None:
        """Raises `FatalError` with the last lines of its log when a worker has ended."""
        for child in self._children:
            if (code := child.process.poll()) is not None:
                lines = _last_lines(child.log)
                raise FatalError(f"{child.module} ended with exit code {code}; its last lines:\n{lines}")


def _stop(children: Sequence[Child]) -> None:
    for child in children:
        child.process.terminate()
    for child in children:
        try:
            child.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def _last_lines(log: Path) -> str:
    lines: Sequence[str] = log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
    return "\n".join(f"  {line}" for line in lines)
