"""Whether a worker's memory stays flat: resident memory early and late in a long backlog."""

from __future__ import annotations

from collections.abc import Iterator

from bench.measurements import Measurement
from bench.scoring import filled, scorer
from bench.setting import EXACTLY_ONCE, Setting
from bench.throughput import watch

PART = "memory"

_ROUNDS = 10
_LEAST = 1_000_000


def full(setting: Setting) -> Iterator[Measurement]:
    """One worker over ten times a million rides, or more where more are asked for; one run."""
    rides = max(_LEAST, setting.rides)
    with filled(setting.smaller(0)) as arena:
        job = scorer(setting, arena, "duration", EXACTLY_ONCE)
        with job.start() as worker:
            for done in range(_ROUNDS):
                arena.fill(job.reads[0], setting.backlog.rides(done * rides, (done + 1) * rides))
                watch(arena, job.group, job.reads, [worker])
                figures = {"now_mb": worker.memory_mb(peak=False), "peak_mb": worker.memory_mb(peak=True)}
                yield Measurement(PART, f"after {(done + 1) * rides:,} rides", 0, figures)
            worker.stop()
