"""Scoring a backlog of rides: the ceilings, and the workers of both models beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

from bench.arena import Arena
from bench.measurements import Figures, Measurement
from bench.setting import AT_LEAST_ONCE, EXACTLY_ONCE, GUARANTEES, Setting
from bench.throughput import Job, finish, measure, pass_through
from rides.pipeline import RIDES

PART = "scoring"

_TOGETHER = 2
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
        for run in range(setting.runs):
            for guarantee in GUARANTEES:
                jobs = [_ceiling(setting, arena, guarantee), scorer(setting, arena, "duration", guarantee)]
                yield from once(arena, PART, jobs, run, setting.rides)
                name = f"duration, {guarantee}, {_TOGETHER} workers"
                yield Measurement(PART, name, run, _together(setting, guarantee))
                jobs = [scorer(setting, arena, "tip", guarantee)]
                jobs.append(scorer(setting, arena, "duration", guarantee, exported=False))
                yield from once(arena, PART, jobs, run, setting.rides)


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
        yield from once(arena, part, jobs, run, setting.rides)


def once(arena: Arena, part: str, jobs: Sequence[Job], run: int, rides: int) -> Iterator[Measurement]:
    """Each job once."""
    for job in jobs:
        yield Measurement(part, job.name, run, measure(arena, job, rides))


def scorer(
    setting: Setting, arena: Arena, model: str, guarantee: str, *, exported: bool = True, name: str | None = None
) -> Job:
    """The worker of a model; not `exported`, it is served by scikit-learn itself. `name` is that of its log."""
    environ = {} if exported else {"MODEL_URI": str(setting.scikit_learn_model(model))}
    return Job(
        f"{model}{'' if exported else ' by scikit-learn'}, {guarantee}",
        partial(setting.worker, arena, f"consumers.{model}", guarantee, name or model, **environ),
        arena.named(model),
        [arena.named(RIDES.subjects.name)],
        arena.named(RIDES.predictions.name),
        guarantee,
    )


def _together(setting: Setting, guarantee: str) -> Figures:
    """Workers that share the partitions before the backlog is there: joining takes seconds."""
    names = [f"duration-{number}" for number in range(_TOGETHER)]
    with setting.arena() as arena, ExitStack() as stack:
        jobs = [scorer(setting, arena, "duration", guarantee, name=name) for name in names]
        workers = [stack.enter_context(job.start()) for job in jobs]
        for worker, name in zip(workers, names, strict=True):
            setting.await_ready(worker, name, most=-(-setting.partitions // _TOGETHER))
        for worker in workers:
            worker.freeze()
        arena.fill(jobs[0].reads[0], setting.backlog.rides(0, setting.rides))
        for worker in workers:
            worker.thaw()
        return finish(arena, jobs[0], workers, setting.rides)


def _ceiling(setting: Setting, arena: Arena, guarantee: str) -> Job:
    return pass_through(setting, arena, [arena.named(RIDES.subjects.name)], guarantee)
