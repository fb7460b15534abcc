"""Decisions from a backlog: rides with two predictions each, beside many rides that stay open."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.arena import Arena
from bench.children import Child, usage
from bench.measurements import Figures, Measurement, require_counts
from bench.setting import EXACTLY_ONCE, GUARANTEES, Setting
from bench.throughput import measure, pass_through, watch
from rides.pipeline import RIDES

PART = "decisions"
OPEN = (1_000, 1_000_000)
READ = 3
"""Records that are read for a decision: the ride and a prediction of each model."""

_MANY = 100_000
"""From so many open rides on, the worker's growth and its restoring say what one of them takes."""


def quick(setting: Setting) -> Iterator[Measurement]:
    """Exactly once, with few rides that stay open."""
    yield from _measure(setting, (EXACTLY_ONCE,), OPEN[:1])


def full(setting: Setting) -> Iterator[Measurement]:
    """Both guarantees, with few and with many rides that stay open."""
    yield from _measure(setting, tuple(GUARANTEES), OPEN)


def subject(guarantee: str, open_rides: int) -> str:
    """How the report names a worker of this guarantee beside so many open rides."""
    return f"{guarantee}, {open_rides:,} open"


def _measure(setting: Setting, guarantees: tuple[str, ...], opens: tuple[int, ...]) -> Iterator[Measurement]:
    rides = max(1, setting.rides // 4)
    with setting.arena() as arena:
        _fill(setting, arena, rides)
        reads = [arena.named(RIDES.subjects.name), arena.named(RIDES.predictions.name)]
        for run in range(setting.runs):
            for guarantee in guarantees:
                ceiling = pass_through(setting, arena, reads, guarantee, READ)
                yield Measurement(PART, ceiling.name, run, measure(arena, ceiling, rides))
                for open_rides in opens:
                    # What is open and what was decided outlives a worker: each begins in topics of its own.
                    with setting.arena() as own:
                        figures = _decide(setting, own, guarantee, rides, open_rides)
                    yield Measurement(PART, subject(guarantee, open_rides), run, figures)


def _fill(setting: Setting, arena: Arena, rides: int) -> None:
    arena.fill(arena.named(RIDES.subjects.name), setting.backlog.rides(0, rides))
    arena.fill(arena.named(RIDES.predictions.name), setting.backlog.predictions(0, rides))


def _decide(setting: Setting, arena: Arena, guarantee: str, rides: int, open_rides: int) -> Figures:
    """Let a worker open the rides that stay open, then time how it decides the others."""
    group, subjects = arena.named("decision"), arena.named(RIDES.subjects.name)
    with _worker(setting, arena, guarantee, rides + open_rides) as worker:
        setting.await_ready(worker, "decision")
        before = worker.memory_mb(peak=False)
        arena.fill(subjects, setting.backlog.rides(rides, rides + open_rides))
        watch(arena, group, [subjects], [worker])
        grown = worker.memory_mb(peak=False) - before
        worker.freeze()
        _fill(setting, arena, rides)
        worker.thaw()
        start = time.time()
        samples = watch(arena, group, [subjects, arena.named(RIDES.predictions.name)], [worker])
        peak = worker.memory_mb(peak=True)
        worker.stop()
    numbers, stamps = arena.read(arena.named(RIDES.decisions.name))
    require_counts(numbers, rides, 1, exactly=guarantee == EXACTLY_ONCE)
    # All of it counts: at first rides are opened, which is read but decides nothing.
    end = int(stamps.max()) / 1000
    used, read_per_s = usage(samples, start, end), READ * rides / (end - start)
    figures = {
        "records_per_s": read_per_s,
        "rides_per_s": read_per_s / READ,
        "cpu": used.own,
        "cpu_us": used.own / read_per_s * 1e6,
        "machine_cpu": used.machine,
        "peak_mb": peak,
    }
    if open_rides >= _MANY:
        figures["bytes_per_open"] = grown * 1e6 / open_rides
        figures["restore_s"] = _restore(setting, arena, guarantee, rides + open_rides)
    return figures


def _restore(setting: Setting, arena: Arena, guarantee: str, rides: int) -> float:
    """Seconds from starting a worker to its knowing again all that it knew, open and closed."""
    start = time.monotonic()
    with _worker(setting, arena, guarantee, rides) as worker:
        setting.await_ready(worker, "decision")
        seconds = time.monotonic() - start
        worker.stop()
    return seconds


def _worker(setting: Setting, arena: Arena, guarantee: str, rides: int) -> Child:
    """A decision service in which nothing ends by a deadline or a limit while it is measured."""
    return setting.worker(
        arena, "decision_service", guarantee, "decision", DECISION_DEADLINE="3600", MAX_OPEN=str(rides + 1)
    )
