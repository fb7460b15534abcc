"""A worker's state in a file, for `braidstream health` in a container: it polls, and whether it is ready."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from braidstream.errors import FatalError

EVERY = 1.0
STALE = 30.0


class HealthFile:
    """Writes the state about once a second; with no path, nowhere."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._last: tuple[float, str | None] = (0.0, "not started")

    def beat(self, waiting_for: str | None, partitions: int) -> None:
        """The worker goes on and owns this many partitions; `waiting_for` says why it is not ready."""
        now = self._clock()
        if self._path is None or (now - self._last[0] < EVERY and waiting_for == self._last[1]):
            return
        self._last = (now, waiting_for)
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            new.write_text(json.dumps({"at": now, "waiting_for": waiting_for, "partitions": partitions}))
            new.replace(self._path)
        except OSError as error:
            raise FatalError(f"HEALTH_FILE={self._path} cannot be written: {error}") from error


def check(path: Path, clock: Callable[[], float] = time.time) -> str:
    """What to say of a healthy worker; raises `FatalError` saying what is wrong with one that is not."""
    try:
        state = json.loads(path.read_text())
        at, waiting_for, partitions = float(state["at"]), state["waiting_for"], state["partitions"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FatalError(f"the worker has not written its state to {path} (HEALTH_FILE): {error!r}") from error
    age = clock() - at
    if age > STALE:
        raise FatalError(f"the worker's loop has not turned for {age:.0f} s")
    if waiting_for is not None:
        raise FatalError(f"the worker is not ready: {waiting_for}")
    return f"ready {age:.1f} s ago, with {partitions} partitions"
