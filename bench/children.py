"""Processes that are measured: started as a user would, watched through Linux's /proc."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from braidstream.errors import FatalError

_TICK = os.sysconf("SC_CLK_TCK")
_STOP_PATIENCE = 60.0


class Sample(NamedTuple):
    """At a time (seconds since 1970): CPU seconds used so far by the children, and by the whole machine."""

    at: float
    own: float
    machine: float


@dataclass(frozen=True)
class Usage:
    """CPU seconds a second, of the children and of the whole machine."""

    own: float
    machine: float


def usage(samples: Sequence[Sample], start: float, end: float) -> Usage:
    """What was used from the last sample before `start` to the first after `end`."""
    first = max((s for s in samples if s.at <= start), key=lambda s: s.at, default=samples[0])
    last = min((s for s in samples if s.at >= end and s.at > first.at), key=lambda s: s.at, default=samples[-1])
    seconds = last.at - first.at
    return Usage((last.own - first.own) / seconds, (last.machine - first.machine) / seconds)


class Child:
    """A running process; what it prints goes to `log`."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._name = " ".join(argv)
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the benchmark's own programs
                list(argv), env={**_inherited(), **environ}, stdout=output, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def require_running(self) -> None:
        """Raises `FatalError` with the end of what the process said, when it has ended."""
        if (code := self._process.poll()) is not None:
            raise FatalError(f"{self._name} ended with exit code {code}: …{self._log.read_text()[-2000:]}")

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def memory_mb(self, *, peak: bool) -> float:
        """Resident memory in MB, now or at its highest."""
        name = "VmHWM:" if peak else "VmRSS:"
        status = Path(f"/proc/{self._process.pid}/status").read_text().split()
        return int(status[status.index(name) + 1]) * 1024 / 1e6

    def said(self) -> str:
        """What it has printed so far."""
        return self._log.read_text()

    def wait(self, timeout: float) -> tuple[str, float, float]:
        """Wait for a process that ends by itself: what it printed, its CPU seconds and its peak of memory in MB.

        Raises `FatalError` when it fails.
        """
        deadline = time.monotonic() + timeout
        while True:
            pid, status, used = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                raise FatalError(f"{self._name} has not ended within {timeout:g} s")
            time.sleep(0.02)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        printed = self._log.read_text()
        if self._process.returncode:
            raise FatalError(f"{self._name} ended with exit code {self._process.returncode}: …{printed[-2000:]}")
        return printed, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6

    def stop(self) -> None:
        """Ask it to end, and wait."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise FatalError(f"{self._name} does not end within {_STOP_PATIENCE:g} s of SIGTERM") from error

    def freeze(self) -> None:
        """Let it take no CPU time until `thaw`; short enough for its consumer group not to miss it."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)


def sample(children: Sequence[Child]) -> Sample:
    """The CPU time used until now."""
    return Sample(time.time(), sum(child.cpu_seconds() for child in children), _machine_seconds())


def _machine_seconds() -> float:
    """All of the first line of /proc/stat but the times of waiting, idle and iowait."""
    times = [int(field) for field in Path("/proc/stat").read_text().split(None, 9)[1:9]]
    return (sum(times) - times[3] - times[4]) / _TICK


def _inherited() -> dict[str, str]:
    """The environment without what would change the pipeline's settings."""
    own = ("KAFKA_", "TOPIC_PREFIX", "SCHEMA_REGISTRY_", "PROCESSING_GUARANTEE", "MODEL_URI", "HTTP_PORT", "HTTP_HOST")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}
