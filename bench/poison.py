"""A backlog with one poison ride in each 500, beside the same backlog without."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np

from bench.arena import Arena
from bench.measurements import Figures, Measurement, require_counts
from bench.poisoned import TOO_MANY
from bench.records import Record
from bench.setting import EXACTLY_ONCE, Setting
from bench.throughput import Job, drain
from braidstream.avro import Codec, LocalSchemas
from braidstream.errors import SettingsError
from rides.pipeline import RIDES

PART = "poison"
CLEAN = "clean"
FAILING = "a feature fails for one in 500"
BROKEN = "one in 500 is not Avro"
SMALL = 500

_EACH = 500
_CODEC = Codec(RIDES.subjects.event_type, LocalSchemas(RIDES.subjects.event_type), RIDES.subjects.name)


def full(setting: Setting) -> Iterator[Measurement]:
    """One worker on each backlog, exactly once, with batches of the default size and small ones."""
    with ExitStack() as stack:
        arenas = {name: stack.enter_context(setting.arena()) for name in _SPOILT}
        for name, arena in arenas.items():
            rides = _with_poison(setting.backlog.rides(0, setting.rides), _SPOILT[name])
            arena.fill(arena.named(RIDES.subjects.name), rides)
        for run in range(setting.runs):
            for batch in (setting.batch, SMALL):
                own = replace(setting, batch=batch)
                for name, arena in arenas.items():
                    figures = _measure(own, arena, spoilt=name != CLEAN)
                    yield Measurement(PART, subject(name, small=batch == SMALL), run, figures)


def subject(name: str, *, small: bool) -> str:
    """How the report names a backlog, read in small batches or in those of the benchmark's setting."""
    return f"{name}, batches of {SMALL}" if small else name


def _refused(value: bytes) -> bytes:
    return _CODEC.encode(_CODEC.decode(value).model_copy(update={"passenger_count": TOO_MANY}))


_SPOILT: dict[str, Callable[[bytes], bytes]] = {
    CLEAN: lambda value: value,
    FAILING: _refused,
    BROKEN: lambda value: value[:-1],
}
"""For each backlog what becomes of the value of each 500th ride."""


def _with_poison(rides: Iterable[Record], spoil: Callable[[bytes], bytes]) -> Iterator[Record]:
    for ride in rides:
        yield ride._replace(value=spoil(ride.value)) if ride.number % _EACH == _EACH // 2 else ride


def _measure(setting: Setting, arena: Arena, *, spoilt: bool) -> Figures:
    """Raises `SettingsError` unless each poison ride is a dead letter and each other one predicted, once."""
    job = Job(
        "duration",
        partial(
            setting.worker,
            arena,
            "bench.poisoned",
            EXACTLY_ONCE,
            "poisoned",
            MODEL_URI=str(setting.models / "duration"),
        ),
        arena.named("duration"),
        [arena.named(RIDES.subjects.name)],
        arena.named(RIDES.predictions.name),
        EXACTLY_ONCE,
    )
    dead_letters = arena.named(RIDES.dead_letters)
    with job.start() as worker:
        drained = drain(arena, job, [worker])
    predicted, stamps = arena.read(job.writes)
    dead, _ = arena.read(dead_letters)
    require_counts(np.concatenate([predicted, dead]), setting.rides, 1, exactly=True)
    poison = set(range(_EACH // 2, setting.rides, _EACH)) if spoilt else set()
    if set(dead.tolist()) != poison:
        raise SettingsError(f"{len(poison)} rides are poison, and {len(dead)} others are dead letters")
    for topic in (job.writes, dead_letters):
        arena.clear(topic)
    arena.forget(job.group)
    return {**drained.figures(stamps), "dead_share": len(dead) / setting.rides}
