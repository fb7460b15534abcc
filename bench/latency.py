"""From the sending of a ride to its prediction, and to its decision, at given rates; and idle workers' CPU time.

Sender, workers and observer are processes of their own, joined by the machine's monotonic clock. The observer reads
what is committed. Where two models predict, the later of the two predictions counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.arena import Arena
from bench.children import Child, sample
from bench.end_to_end import WORKERS, reading
from bench.measurements import Figures, Measurement, percentiles
from bench.setting import GUARANTEES, Setting
from bench.throughput import watch
from braidstream.errors import FatalError
from rides.pipeline import RIDES

PART = "latency"
ONE_MODEL = "one model"
PIPELINE = "pipeline"
RATES = (100, 1_000, 5_000)

_WARM_UP = (500, 4.0)
"""Rides a second, and seconds, before anything counts."""
_SECONDS = 8.0
_LEFT_OUT = 2.0
_IDLE_SECONDS = 20.0
_DRAIN = 1.5
"""Seconds for what is on its way."""


@dataclass(frozen=True)
class _Case:
    """Workers, and the topics in which a ride's records are waited for, by what the report calls them."""

    name: str
    workers: Mapping[str, str]
    waits_for: Mapping[str, str]


_PREDICTION = {"prediction": RIDES.predictions.name}
_BROKER_ALONE = _Case("broker alone", {}, {"consumer": RIDES.subjects.name})
_ONE_WORKER = _Case(ONE_MODEL, {"duration": WORKERS["duration"]}, _PREDICTION)
_PIPELINE = _Case(PIPELINE, WORKERS, {**_PREDICTION, "decision": RIDES.decisions.name})


def subject(case: str, guarantee: str, rate: int, to: str) -> str:
    """How the report names a latency."""
    return f"{case}, {guarantee}, {rate:,}/s to {to}"


def idle_subject(case: str, guarantee: str) -> str:
    """How the report names workers that have nothing to do."""
    return f"{case}, {guarantee}, idle"


def full(setting: Setting) -> Iterator[Measurement]:
    """The broker alone, one model's worker, and the whole pipeline, at every rate; idle workers once."""
    for run in range(setting.runs):
        for name, figures in _measure(setting, _BROKER_ALONE, next(iter(GUARANTEES)), run):
            yield Measurement(
                PART, name.replace(f"{_BROKER_ALONE.name}, exactly once", _BROKER_ALONE.name), run, figures
            )
        for case in (_ONE_WORKER, _PIPELINE):
            for guarantee in GUARANTEES:
                for name, figures in _measure(setting, case, guarantee, run):
                    yield Measurement(PART, name, run, figures)


def _measure(setting: Setting, case: _Case, guarantee: str, run: int) -> Iterator[tuple[str, Figures]]:
    phases = [_WARM_UP, *((rate, _SECONDS) for rate in RATES)]
    bounds = np.cumsum([0, *(round(rate * seconds) for rate, seconds in phases)]).tolist()
    with setting.arena() as arena, ExitStack() as stack:
        workers = {}
        for name, module in case.workers.items():
            workers[name] = stack.enter_context(setting.worker(arena, module, guarantee, name))
            setting.await_ready(workers[name], name)
        observer, seen_file = _observe(setting, arena, list(case.waits_for.values()), bounds[-1], stack)
        sent = np.concatenate([_send(setting, arena, phase, *bounds[n : n + 2]) for n, phase in enumerate(phases)])
        for name, reads in reading(workers):
            watch(arena, arena.named(name), [arena.named(reads)], list(workers.values()))
        time.sleep(_DRAIN)
        idle = _idle(list(workers.values())) if workers and run == 0 else None
        observer.stop()
    seen = np.load(seen_file)
    for rate, start, stop in zip(RATES, bounds[1:], bounds[2:], strict=False):
        first = start + round(rate * _LEFT_OUT)
        for to, times in zip(case.waits_for, seen, strict=True):
            yield subject(case.name, guarantee, rate, to), percentiles(_latencies(sent, times, first, stop))
    if idle is not None:
        yield idle_subject(case.name, guarantee), {"idle_cpu": idle}


def _latencies(sent: NDArray[np.int64], seen: NDArray[np.int64], first: int, stop: int) -> NDArray[np.float64]:
    """In milliseconds; raises `FatalError` when a ride was never seen."""
    if missing := int((seen[first:stop] == 0).sum()):
        raise FatalError(f"{missing:,} of {stop - first:,} rides did not come out")
    milliseconds: NDArray[np.float64] = (seen[first:stop] - sent[first:stop]) / 1e6
    return milliseconds


def _observe(setting: Setting, arena: Arena, topics: Sequence[str], rides: int, stack: ExitStack) -> tuple[Child, Path]:
    seen = setting.scratch / "seen.npy"
    argv = [sys.executable, "-m", "bench.observer", "--bootstrap", setting.broker, "--rides", str(rides)]
    argv += ["--partitions", str(setting.partitions), "--seen", str(seen)]
    for topic in topics:
        argv += ["--topic", arena.named(topic)]
    return stack.enter_context(setting.start(argv, {}, "observer")), seen


def _send(setting: Setting, arena: Arena, phase: tuple[float, float], start: int, stop: int) -> NDArray[np.int64]:
    """Send rides at the phase's rate; when each was sent."""
    rides, sent = setting.scratch / "rides.txt", setting.scratch / "sent.npy"
    with rides.open("w") as file:
        file.writelines(f"{key.decode()} {value.hex()}\n" for _, key, value in setting.backlog.rides(start, stop))
    argv = [sys.executable, "-m", "bench.sender", "--bootstrap", setting.broker, "--rate", str(phase[0])]
    argv += ["--topic", arena.named(RIDES.subjects.name), "--partitions", str(setting.partitions)]
    with setting.start([*argv, "--rides", str(rides), "--sent", str(sent)], {}, "sender") as sender:
        sender.wait(phase[1] + 60)
    time.sleep(_DRAIN)
    times: NDArray[np.int64] = np.load(sent)
    return times


def _idle(workers: Sequence[Child]) -> float:
    """CPU seconds a second of the busiest worker while there is nothing to do."""
    shares = []
    before = [sample([worker]) for worker in workers]
    time.sleep(_IDLE_SECONDS)
    for worker, first in zip(workers, before, strict=True):
        last = sample([worker])
        shares.append((last.own - first.own) / (last.at - first.at))
    return max(shares)
