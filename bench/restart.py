"""A decision service with many open rides that is killed and started again."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bench.arena import Arena
from bench.children import Child
from bench.measurements import Figures, Measurement, percentiles, require_counts
from bench.setting import EXACTLY_ONCE, Setting
from bench.throughput import watch
from braidstream.avro import Codec, LocalSchemas
from braidstream.errors import FatalError, SettingsError
from rides.pipeline import RIDES

PART = "restart"
OPEN = 200_000
SUBJECT = f"{EXACTLY_ONCE}, {OPEN:,} open"

_DEADLINE = 60.0
"""Seconds: longer than it takes to open the rides, to kill their service and to start another."""
_PATIENCE = 120.0
_CODEC = Codec(RIDES.decisions.event_type, LocalSchemas(RIDES.decisions.event_type), RIDES.decisions.name)


def full(setting: Setting) -> Iterator[Measurement]:
    """Kill it while all of the rides are open, and see when each of them is decided."""
    for run in range(setting.runs):
        with setting.arena() as arena:
            yield Measurement(PART, SUBJECT, run, _restart(setting, arena))


def _restart(setting: Setting, arena: Arena) -> Figures:
    subjects = arena.named(RIDES.subjects.name)
    with _service(setting, arena, "killed", _DEADLINE) as service:
        setting.await_ready(service, "killed")
        before = service.memory_mb(peak=False)
        arena.fill(subjects, setting.backlog.rides(0, OPEN))
        watch(arena, arena.named("decision"), [subjects], [service])
        grown = service.memory_mb(peak=False) - before
    killed_at = time.time()
    # The deadlines are those of the changelog: the settings of the second one would be far too late.
    with _service(setting, arena, "restarted", 10 * _DEADLINE) as service:
        setting.await_ready(service, "restarted")
        ready_s = time.time() - killed_at
        _await_decisions(arena, service)
        service.stop()
        restored = [float(seconds) for seconds in re.findall(r"restored.*seconds=([\d.]+)", service.said())]
    late = _lateness(arena, killed_at)
    return {
        "bytes_per_open": grown * 1e6 / OPEN,
        "restore_s": max(restored),
        "ready_s": ready_s,
        **percentiles(late * 1000),
        "latest_s": float(late.max()),
    }


def _service(setting: Setting, arena: Arena, name: str, deadline: float) -> Child:
    return setting.worker(arena, "decision_service", EXACTLY_ONCE, name, DECISION_DEADLINE=f"{deadline:g}")


def _await_decisions(arena: Arena, service: Child) -> None:
    """Wait until there are as many decisions as rides."""
    deadline = time.monotonic() + _PATIENCE
    topic = arena.named(RIDES.decisions.name)
    while sum(arena.ends(topic).values()) < OPEN or len(arena.values(topic)) < OPEN:
        service.require_running()
        if time.monotonic() > deadline:
            raise FatalError(f"{OPEN:,} rides are not decided after {_PATIENCE:g} s")
        time.sleep(1.0)


def _lateness(arena: Arena, killed_at: float) -> NDArray[np.float64]:
    """Seconds from the deadline of each ride to its decision; raises `SettingsError` unless each is decided once."""
    topic = arena.named(RIDES.decisions.name)
    numbers, _ = arena.read(topic)
    require_counts(numbers, OPEN, 1, exactly=True)
    decisions = [_CODEC.decode(value) for value in arena.values(topic)]
    if max(decision.opened_at.timestamp() for decision in decisions) > killed_at:
        raise SettingsError("a ride that was open was forgotten, and opened again")
    took = [(decision.decided_at - decision.opened_at).total_seconds() for decision in decisions]
    late = np.array(took) - _DEADLINE
    if late.min() < 0:
        raise SettingsError(f"a ride was decided {-late.min():g} s before its deadline")
    return late
