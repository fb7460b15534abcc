"""The workers of a run and their supervisor: what exits is started again, as by systemd or Kubernetes."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from tests.faults.interrupted import Point
from tests.integration.ride_pipeline import RidePipeline

DECIDER = "decision_service"
SCORERS = ("consumers.duration", "consumers.tip")

_RESTART_AFTER = 1.0
"""Seconds that a worker has run at least when it is started again."""
_STOP_TIMEOUT = 60.0

Fate = Literal["running", "killed", "asked to stop", "interrupted", "paused"]
"""What was done to a process last; an interrupted one is going to kill or stop itself."""

_EXPECTED: Mapping[Fate, Sequence[int]] = MappingProxyType(
    {
        "running": (),
        "paused": (),
        "killed": (-signal.SIGKILL,),
        "interrupted": (-signal.SIGKILL,),
        # Before the worker has its handler, the signal ends the interpreter.
        "asked to stop": (0, -signal.SIGTERM),
    }
)
"""The exit codes that are no news."""


@dataclass
class Slot:
    """One worker, whatever process it is now."""

    part: str
    process: subprocess.Popen[bytes]
    started_at: float
    fate: Fate = "running"


class Fleet:
    """Keeps as many workers of each part running as are wanted. To be looked after by `look`, often."""

    def __init__(self, pipeline: RidePipeline, models: Path) -> None:
        self._pipeline = pipeline
        self._models = models
        self._slots: list[Slot] = []
        self.settings: dict[str, dict[str, str]] = {part: {} for part in (*SCORERS, DECIDER)}
        """Of each part, beside those that all have; heeded at the next start."""
        self.restarts: Counter[tuple[str, int]] = Counter()
        """Processes that were replaced, by part and exit code."""
        self.surprises: Counter[tuple[str, int]] = Counter()
        """Processes that ended without being told to, or with another exit code than they should."""

    def of(self, part: str | None = None) -> list[Slot]:
        """The workers of a part, or all."""
        return [slot for slot in self._slots if part in (None, slot.part)]

    def running(self, part: str | None = None) -> list[Slot]:
        """Those to which something can be done."""
        return [s for s in self.of(part) if s.fate in ("running", "interrupted") and s.process.poll() is None]

    def scale(self, part: str, count: int) -> None:
        """Have so many workers of a part; those that are too many are asked to stop, and waited for."""
        slots = self.of(part)
        self._slots += [self._start(part) for _ in range(count - len(slots))]
        gone = slots[count:]
        for slot in gone:
            self.go_on(slot)
            self.terminate(slot)
        for slot in gone:
            self._note(slot, _exit_code(slot.process))
            self._slots.remove(slot)

    def look(self) -> None:
        """Start again what has ended."""
        for index, slot in enumerate(self._slots):
            code = slot.process.poll()
            if code is not None and time.monotonic() - slot.started_at >= _RESTART_AFTER:
                self._note(slot, code)
                self.restarts[slot.part, code] += 1
                self._slots[index] = self._start(slot.part)

    def kill(self, slot: Slot) -> None:
        """SIGKILL."""
        slot.fate = "killed"
        slot.process.kill()
        slot.process.wait()

    def terminate(self, slot: Slot) -> None:
        """SIGTERM, in the middle of whatever the worker does; it has to exit with 0."""
        if slot.process.poll() is None:
            slot.fate = "asked to stop"
            slot.process.send_signal(signal.SIGTERM)

    def pause(self, slot: Slot) -> None:
        """SIGSTOP."""
        slot.fate = "paused"
        slot.process.send_signal(signal.SIGSTOP)

    def go_on(self, slot: Slot) -> None:
        """SIGCONT, for one that is paused or has stopped itself."""
        if slot.fate in ("paused", "interrupted") and slot.process.poll() is None:
            slot.process.send_signal(signal.SIGCONT)
            slot.fate = "running" if slot.fate == "paused" else slot.fate

    def replace(self, slot: Slot, point: Point, turn: int, name: Literal["KILL", "STOP"]) -> Slot:
        """Kill a worker; the one in its place sends itself a signal at this point (see `interrupted`)."""
        self.kill(slot)
        self.restarts[slot.part, -signal.SIGKILL] += 1
        new = self._start(slot.part, point, str(turn), name)
        self._slots[self._slots.index(slot)] = new
        return new

    def stop(self) -> None:
        """Ask all to stop, and wait until they have."""
        for part in (*SCORERS, DECIDER):
            self.scale(part, 0)

    def _start(self, part: str, *interruption: str) -> Slot:
        settings = dict(self.settings[part])
        if part in SCORERS:
            settings["MODEL_URI"] = str(self._models / part.removeprefix("consumers."))
        command = ("tests.faults.interrupted", part, *interruption) if interruption else (part,)
        process = self._pipeline.start(*command, PYTHONFAULTHANDLER="1", **settings)
        return Slot(part, process, time.monotonic(), "interrupted" if interruption else "running")

    def _note(self, slot: Slot, code: int) -> None:
        if code not in _EXPECTED[slot.fate]:
            self.surprises[slot.part, code] += 1


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Wait for the process to end; one that does not has its stacks written to its log, and is ended."""
    try:
        return process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        return process.wait()


def has_stopped(slot: Slot) -> bool:
    """Whether the process stands still by a signal."""
    state = subprocess.run(
        ["ps", "-o", "state=", "-p", str(slot.process.pid)], capture_output=True, text=True, check=False
    )
    return state.stdout.strip().startswith("T")
