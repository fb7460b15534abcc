"""All the parts at once, from a backlog of rides until every ride is decided."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack

from bench.arena import Arena
from bench.children import usage
from bench.measurements import Figures, Measurement, require_counts
from bench.setting import EXACTLY_ONCE, GUARANTEES, Setting
from bench.throughput import watch
from rides.pipeline import RIDES

PART = "end to end"
WORKERS = {"duration": "consumers.duration", "tip": "consumers.tip", "decision": "decision_service"}
"""The modules of the pipeline's workers, by the groups that they form."""


def full(setting: Setting) -> Iterator[Measurement]:
    """One worker of each, on both guarantees."""
    rides = max(1, setting.rides // 2)
    for run in range(setting.runs):
        for guarantee in GUARANTEES:
            with setting.arena() as arena:
                arena.fill(arena.named(RIDES.subjects.name), setting.backlog.rides(0, rides))
                yield Measurement(PART, f"all parts, {guarantee}", run, _decide_all(setting, arena, guarantee, rides))


def reading(groups: Collection[str]) -> Iterator[tuple[str, str]]:
    """Which group reads which topic, in the order of the stream."""
    for group in groups:
        yield group, RIDES.subjects.name
    if "decision" in groups:
        yield "decision", RIDES.predictions.name


def _decide_all(setting: Setting, arena: Arena, guarantee: str, rides: int) -> Figures:
    with ExitStack() as stack:
        workers = [
            stack.enter_context(setting.worker(arena, module, guarantee, name, DECISION_DEADLINE="3600"))
            for name, module in WORKERS.items()
        ]
        samples = []
        for group, topic in reading(WORKERS):
            samples += watch(arena, arena.named(group), [arena.named(topic)], workers)
        peak = sum(worker.memory_mb(peak=True) for worker in workers)
        for worker in workers:
            worker.stop()
    predicted, first = arena.read(arena.named(RIDES.predictions.name))
    decided, stamps = arena.read(arena.named(RIDES.decisions.name))
    for numbers, times in ((predicted, 2), (decided, 1)):
        require_counts(numbers, rides, times, exactly=guarantee == EXACTLY_ONCE)
    start, end = int(first.min()) / 1000, int(stamps.max()) / 1000
    used = usage(samples, start, end)
    return {
        "decided_per_s": rides / (end - start),
        "cpu": used.own,
        "cpu_us": used.own * (end - start) / rides * 1e6,
        "machine_cpu": used.machine,
        "peak_mb": peak,
    }
