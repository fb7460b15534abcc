"""What can be done to a run, one function for each kind of fault. Everything random comes from the run's seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tests.containers import HASTY_SESSION
from tests.faults.fleet import DECIDER, SCORERS, Slot, has_stopped
from tests.faults.interrupted import Point
from tests.faults.world import OUTAGE, PAUSE, World

_POINTS: Mapping[str, tuple[Point, ...]] = MappingProxyType(
    {
        "exactly_once": ("producing", "before offsets", "before commit", "after commit"),
        "at_least_once": ("producing", "flushed"),
    }
)
_TURNS = 30
_MOST_WORKERS = 3
_EXPECTED = (("duration", "tip"), ("duration",), ("tip",))


def kill(world: World) -> None:
    """SIGKILL of any worker."""
    if workers := world.fleet.running():
        world.fleet.kill(world.rng.choice(workers))


def terminate(world: World) -> None:
    """SIGTERM of any worker."""
    if workers := world.fleet.running():
        world.fleet.terminate(world.rng.choice(workers))


def kill_while_publishing(world: World) -> None:
    """SIGKILL of any worker between two records, before its offsets, or on either side of its commit."""
    if workers := world.fleet.running():
        point = world.rng.choice(_POINTS[world.setting.guarantee])
        world.fleet.replace(world.rng.choice(workers), point, world.rng.randint(1, _TURNS), "KILL")


def kill_while_restoring(world: World) -> None:
    """SIGKILL of a decision service in the middle of its changelog."""
    if workers := world.fleet.running(DECIDER):
        world.fleet.replace(world.rng.choice(workers), "restoring", world.rng.randint(1, 3), "KILL")


def pause(world: World) -> None:
    """SIGSTOP of any worker, for longer than its group and its transaction wait."""
    if workers := world.fleet.running():
        slot = world.rng.choice(workers)
        world.fleet.pause(slot)
        world.later(PAUSE, lambda: world.fleet.go_on(slot))


def pause_while_publishing(world: World) -> None:
    """The same between produce and commit: what goes on then is a zombie."""
    if workers := world.fleet.running():
        point = world.rng.choice(_POINTS[world.setting.guarantee][:-1])
        slot = world.fleet.replace(world.rng.choice(workers), point, world.rng.randint(1, _TURNS), "STOP")
        world.later(0.0, lambda: _await_stop(world, slot))


def _await_stop(world: World, slot: Slot) -> None:
    if slot.process.poll() is None and slot.fate == "interrupted":
        if has_stopped(slot):
            world.later(PAUSE, lambda: world.fleet.go_on(slot))
        else:
            world.later(0.5, lambda: _await_stop(world, slot))


def scale(world: World) -> None:
    """More or fewer workers of any part."""
    part = world.rng.choice((*SCORERS, DECIDER))
    world.fleet.scale(part, world.rng.randint(1, _MOST_WORKERS))


def change_expected_models(world: World) -> None:
    """The decision services are stopped, and new ones expect other models."""
    others = [models for models in _EXPECTED if models != world.expected]
    world.expect(world.rng.choice(others))


def kill_broker(world: World) -> None:
    """SIGKILL of the broker; it comes back when its controller has missed it (see `run_hasty_kafka`)."""
    world.broker.kill()
    world.go_on(HASTY_SESSION + 1.0)
    world.broker.start()
    world.await_broker()


def stop_broker_for_long(world: World) -> None:
    """The broker is away for longer than a transaction may last."""
    world.broker.kill()
    world.go_on(OUTAGE)
    world.broker.start()
    world.await_broker()


def kill_producer(world: World) -> None:
    """SIGKILL of the producer, which sends the file that it was at again."""
    world.feeder.kill_producer()


def send_again(world: World) -> None:
    """Duplicates, reordered."""
    world.feeder.send_again()


def send_late(world: World) -> None:
    """Rides out of their order, long after their start."""
    world.feeder.send_late()


def send_bad(world: World) -> None:
    """Records that are no rides."""
    world.feeder.send_bad()


Fault = Callable[[World], None]

FAULTS: Mapping[Fault, int] = MappingProxyType(
    {
        kill: 6,
        terminate: 3,
        kill_while_publishing: 4,
        kill_while_restoring: 2,
        pause: 2,
        pause_while_publishing: 2,
        scale: 4,
        change_expected_models: 1,
        kill_broker: 2,
        stop_broker_for_long: 1,
        kill_producer: 2,
        send_again: 1,
        send_late: 1,
        send_bad: 1,
    }
)
"""Each kind of fault, and how often it happens beside the others."""


def name_of(fault: Fault) -> str:
    """The fault in words."""
    return fault.__name__.replace("_", " ")


def killed_at(part: str, point: Point, turn: int = 3) -> Fault:
    """A worker of this part is killed at this point; it is waited for."""

    def kill_there(world: World) -> None:
        slot = world.fleet.replace(world.fleet.running(part)[0], point, turn, "KILL")
        world.wait_for(lambda: slot.process.poll() is not None, f"{part} reaches the point {point}")

    kill_there.__name__ = f"{part} killed {point}"
    return kill_there


def paused_at(part: str, point: Point, turn: int = 3) -> Fault:
    """A worker of this part stands still at this point, is waited for, and goes on there when others do its work."""

    def pause_there(world: World) -> None:
        slot = world.fleet.replace(world.fleet.running(part)[0], point, turn, "STOP")
        world.wait_for(lambda: has_stopped(slot), f"{part} reaches the point {point}")
        world.later(PAUSE, lambda: world.fleet.go_on(slot))

    pause_there.__name__ = f"{part} paused {point}"
    return pause_there
