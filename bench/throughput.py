"""How many records a second a group of processes takes from a backlog, by the broker's own times."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bench.arena import PASSED_THROUGH, Arena
from bench.children import Child, Sample, sample, usage
from bench.measurements import Figures, rate_after, require_counts
from bench.setting import EXACTLY_ONCE, GUARANTEES, Setting
from braidstream.errors import FatalError

_POLL = 0.1
_PATIENCE = 600.0
_START = 0.05
"""The share of the records that is left out: it holds the process's start."""


@dataclass(frozen=True)
class Job:
    """A process that reads topics as a group and writes a topic; all by their full names.

    Each ride is written `times` times. A job whose `group_is_new` is measured once; the group of any other is deleted
    after each run.
    """

    name: str
    start: Callable[[], Child]
    group: str
    reads: Sequence[str]
    writes: str
    guarantee: str
    times: int = 1
    group_is_new: bool = False


def pass_through(setting: Setting, arena: Arena, reads: Sequence[str], guarantee: str, times: int = 1) -> Job:
    """The ceiling over these topics."""
    group, output = arena.named("pass-through"), arena.named(PASSED_THROUGH)
    argv = [sys.executable, "-m", "bench.ceiling", "--bootstrap", setting.broker, "--output", output]
    argv += ["--group", group, "--guarantee", GUARANTEES[guarantee], "--batch", str(setting.batch)]
    for topic in reads:
        argv += ["--input", topic]
    start = partial(setting.start, argv, {}, "pass-through")
    return Job(f"pass-through, {guarantee}", start, group, reads, output, guarantee, times)


def measure(arena: Arena, job: Job, rides: int, left_out: float = _START) -> Figures:
    """Run the job over the backlog once; raises a `BraidstreamError` when it fails, or loses or repeats a ride.

    The rate and the CPU time are those after the share of the records that is left out.
    """
    with job.start() as child:
        figures = finish(arena, job, [child], rides, left_out)
    arena.clear(job.writes)
    if not job.group_is_new:
        arena.forget(job.group)
    return figures


def finish(arena: Arena, job: Job, children: Sequence[Child], rides: int, left_out: float = _START) -> Figures:
    """Wait for the end of the backlog, stop the processes, and see what they have written."""
    drained = drain(arena, job, children)
    numbers, stamps = arena.read(job.writes)
    require_counts(numbers, rides, job.times, exactly=job.guarantee == EXACTLY_ONCE)
    return drained.figures(stamps, left_out)


@dataclass(frozen=True)
class Drained:
    """What processes took for a backlog: their CPU time while it lasted, and their peak of memory in MB."""

    samples: Sequence[Sample]
    peak_mb: float

    def figures(self, stamps: NDArray[np.int64], left_out: float = _START) -> Figures:
        """With the times at which the broker took what was written, in milliseconds since 1970."""
        rate, start, end = rate_after(stamps, left_out)
        used = usage(self.samples, start, end)
        return {
            "records_per_s": rate,
            "cpu": used.own,
            "cpu_us": used.own / rate * 1e6,
            "machine_cpu": used.machine,
            "peak_mb": self.peak_mb,
        }


def drain(arena: Arena, job: Job, children: Sequence[Child]) -> Drained:
    """Wait for the end of the backlog, and stop the processes."""
    samples = watch(arena, job.group, job.reads, children)
    drained = Drained(samples, sum(child.memory_mb(peak=True) for child in children))
    for child in children:
        child.stop()
    return drained


def watch(arena: Arena, group: str, reads: Sequence[str], children: Sequence[Child]) -> list[Sample]:
    """Wait until the group has committed all that there is to read; the CPU time used meanwhile."""
    ends = {at: end for topic in reads for at, end in arena.record_ends(topic).items()}
    samples = []
    deadline = time.monotonic() + _PATIENCE
    with arena.offsets_of(group) as offsets:
        while True:
            samples.append(sample(children))
            committed = offsets(ends)
            if all(committed.get(at, 0) >= end for at, end in ends.items()):
                return samples
            for child in children:
                child.require_running()
            if time.monotonic() > deadline:
                raise FatalError(f"{group} is not done after {_PATIENCE:g} s, at {sum(committed.values()):,} records")
            time.sleep(_POLL)
