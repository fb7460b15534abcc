"""A run: faults for a while, then everything settles, and what is in the topics is checked."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.faults.checker import Observed, Promise, Violation, check
from tests.faults.faults import FAULTS, Fault, name_of
from tests.faults.observing import Offsets, observed, offsets_of, promised
from tests.faults.world import DEADLINE, Setting, World

PATIENCE = 180.0
"""Seconds that everything may take to settle."""

_LEAST_GAP = 0.2
_STILL = 2.0
_FOR_THE_SUPERVISOR = 1
"""The exit code of a worker that only needs to be started again."""


@dataclass(frozen=True)
class Outcome:
    """What a run has done and found. `seconds` are those with faults, and then those until all was settled."""

    setting: Setting
    seconds: tuple[float, float]
    faults: Mapping[str, int]
    counts: Mapping[str, int]
    restarts: Mapping[tuple[str, int], int]
    surprises: Mapping[tuple[str, int], int]
    tracebacks: list[str]
    violations: list[Violation]

    @property
    def failures(self) -> list[str]:
        """All that is not as it should be, in words."""
        surprises = [
            f"{part} ended with exit code {code}, {count} times"
            for (part, code), count in self.surprises.items()
            if code != _FOR_THE_SUPERVISOR
        ]
        return [*surprises, *(f"a traceback in {log}" for log in self.tracebacks), *map(str, self.violations)]


def at_random(seed: int, seconds: float) -> Iterator[Fault]:
    """Faults for this long, each as often as its weight says."""
    rng = random.Random(seed)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield rng.choices(list(FAULTS), list(FAULTS.values()))[0]


def each_once(seed: int, faults: Iterable[Fault] = FAULTS) -> list[Fault]:
    """Every fault once, in any order."""
    shuffled = list(faults)
    random.Random(seed).shuffle(shuffled)
    return shuffled


def execute(world: World, faults: Iterable[Fault], models: Path, logs: Path) -> Outcome:
    """Do the faults to a world one after the other, settle it, and check it."""
    started = time.monotonic()
    done: Counter[str] = Counter()
    for fault in faults:
        world.go_on(world.rng.uniform(_LEAST_GAP, world.setting.gap))
        fault(world)
        done[name_of(fault)] += 1
    faulty = time.monotonic()
    setting = world.setting
    paused = any("pause" in name for name in done)
    promise = promised(world.pipeline, models, setting.guarantee, world.phases, DEADLINE, paused=paused)
    late = [] if _settle(world, promise) else [Violation("lost", "the run", f"did not settle within {PATIENCE:g} s")]
    settled_at = time.monotonic()
    world.fleet.stop()
    found = observed(world.pipeline, promise, acknowledged=world.feeder.acknowledged, seen=world.witness.seen)
    violations = late + check(found, promise)
    return Outcome(
        setting,
        (faulty - started, settled_at - faulty),
        done,
        _counts(found),
        world.fleet.restarts,
        world.fleet.surprises,
        [str(log) for log in sorted(logs.glob("*.log")) if b"Traceback" in log.read_bytes()],
        violations,
    )


def _settle(world: World, promise: Promise) -> bool:
    """Wait until every ride is decided, every group at the end and every worker ready, and stays so."""
    world.feeder.finish()
    until = time.monotonic() + PATIENCE
    rides = {ride.encode() for ride in world.feeder.acknowledged}
    moving_at = time.monotonic()
    with offsets_of(world.pipeline.settings, promise.readers) as offsets:
        while time.monotonic() < until:
            world.look_after()
            settled = not world.has_plans and rides <= world.witness.decided
            if not settled or not _at_end(world, promise, offsets()) or not _ready(world):
                moving_at = time.monotonic()
            elif time.monotonic() - moving_at > _STILL:
                return True
    return False


def _at_end(world: World, promise: Promise, offsets: Offsets) -> bool:
    ends = world.witness.ends.copy()
    return all(
        offsets[group].get(partition) == end
        for group, topics in promise.readers.items()
        for partition, end in ends.items()
        if partition.topic in topics
    )


def _ready(world: World) -> bool:
    answers = [world.pipeline.answer_of(slot.process) for slot in world.fleet.of()]
    return all(answer is not None and answer.ready for answer in answers)


def _counts(found: Observed) -> Mapping[str, int]:
    rides = [record.value.ride_id for record in found.rides if record.value is not None]
    decisions = [record.value for record in found.decisions if record.value is not None]
    return {
        "rides": len(set(rides)),
        "rides sent again": len(rides) - len(set(rides)),
        "records that are no rides": len(found.rides) - len(rides),
        "predictions": len(found.predictions),
        "decisions": len(decisions),
        "of these at first partial": sum(d.revision == 0 and not d.complete for d in decisions),
        "of these revisions": sum(d.revision > 0 for d in decisions),
        "dead letters": len(found.dead_letters),
    }
