"""Scoring a backlog of rides: the ceilings, and the workers of both models beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from bench.arena import Arena
from bench.measurements import Measurement
from bench.setting import AT_LEAST_ONCE, EXACTLY_ONCE, GUARANTEES, Setting
from bench.throughput import Job, measure, pass_through
from rides.pipeline import RIDES

PART = "scoring"

_PARTITIONS = (1, 6, 24, 96)


def ceilings(setting: Setting) -> Iterator[Measurement]:
    """Raw pass-through at least once and with transactions."""
    with filled(setting) as arena:
        yield from alternate(setting, arena, PART, [_ceiling(setting, arena, name) for name in GUARANTEES])


def quick(setting: Setting) -> Iterator[Measurement]:
    """One worker beside the ceiling."""
    with filled(setting) as arena:
        jobs = [_ceiling(setting, arena, EXACTLY_ONCE), scorer(setting, arena, "duration", EXACTLY_ONCE)]
        jobs.append(scorer(setting, arena, "duration", AT_LEAST_ONCE))
        yield from alternate(setting, arena, PART, jobs)


def full(setting: Setting) -> Iterator[Measurement]:
    """Both models, both guarantees, one and two workers, with and without an export."""
    with filled(setting) as arena:
        jobs = []
        for guarantee in GUARANTEES:
            jobs.append(_ceiling(setting, arena, guarantee))
            jobs += [scorer(setting, arena, model, guarantee) for model in ("duration", "tip")]
            jobs.append(scorer(setting, arena, "duration", guarantee, workers=2))
            jobs.append(scorer(setting, arena, "duration", guarantee, exported=False))
        yield from alternate(setting, arena, PART, jobs)


def by_partitions(setting: Setting) -> Iterator[Measurement]:
    """One worker beside the ceiling, exactly once, on few and on many partitions."""
    for partitions in _PARTITIONS:
        own = replace(setting, partitions=partitions)
        with filled(own) as arena:
            jobs = [_ceiling(own, arena, EXACTLY_ONCE), scorer(own, arena, "duration", EXACTLY_ONCE)]
            named = [replace(job, name=f"{job.name}, {partitions} partitions") for job in jobs]
            yield from alternate(own, arena, "partitions", named)


@contextmanager
def filled(setting: Setting) -> Iterator[Arena]:
    """Topics with a backlog of rides, shared by every run."""
    with setting.arena() as arena:
        arena.fill(arena.named(RIDES.subjects.name), setting.backlog.rides(0, setting.rides))
        yield arena


def alternate(setting: Setting, arena: Arena, part: str, jobs: Sequence[Job]) -> Iterator[Measurement]:
    """Run after run, each job once a run, so that what disturbs a run meets all of them."""
    for run in range(setting.runs):
        for job in jobs:
            yield Measurement(part, job.name, run, measure(arena, job, setting.rides))


def scorer(
    setting: Setting, arena: Arena, model: str, guarantee: str, *, workers: int = 1, exported: bool = True
) -> Job:
    """The workers of a model; not `exported`, it is served by scikit-learn itself."""
    environ = {} if exported else {"MODEL_URI": str(setting.scikit_learn_model(model))}
    name = (
        f"{model}{'' if exported else ' by scikit-learn'}, {guarantee}{'' if workers == 1 else f', {workers} workers'}"
    )
    return Job(
        name,
        lambda number: setting.worker(arena, f"consumers.{model}", guarantee, f"{model}-{number}", **environ),
        arena.named(model),
        [arena.named(RIDES.subjects.name)],
        arena.named(RIDES.predictions.name),
        guarantee,
        workers,
    )


def _ceiling(setting: Setting, arena: Arena, guarantee: str) -> Job:
    return pass_through(setting, arena, [arena.named(RIDES.subjects.name)], guarantee)
