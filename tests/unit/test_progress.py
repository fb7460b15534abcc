"""What stands still is noticed, and told once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from braidstream.streaming.inbox import Reading
from braidstream.streaming.ports import Partition
from braidstream.watching.progress import LoopWatch, PartitionWatch

LIMIT = 60.0
RIDES_3 = Partition("ride_started", 3)
RIDES_4 = Partition("ride_started", 4)


class Clock:
    """A clock to move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Notes:
    """What was noted, in order; the last one is how it is."""

    def __init__(self) -> None:
        self.all: list[str | None] = [None]

    def __call__(self, reason: str | None) -> None:
        self.all.append(reason)

    @property
    def last(self) -> str | None:
        return self.all[-1]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notes() -> Notes:
    return Notes()


# The loop


def look_for(watch: LoopWatch, clock: Clock, seconds: int) -> None:
    for _ in range(seconds):
        clock.now += 1
        watch.look()


@contextmanager
def a_loop_that_hangs(watch: LoopWatch) -> Iterator[None]:
    """A loop in a thread of its own that turns once and then hangs."""
    inside, release = threading.Event(), threading.Event()

    def hang_in_the_model() -> None:
        inside.set()
        release.wait()

    def loop() -> None:
        watch.turned()
        hang_in_the_model()

    thread = threading.Thread(target=loop)
    thread.start()
    inside.wait()
    try:
        yield
    finally:
        release.set()
        thread.join()


def test_a_loop_that_turns_is_not_stuck(clock: Clock, notes: Notes) -> None:
    watch = LoopWatch(LIMIT, notes, clock)
    for _ in range(10):
        watch.turned()
        look_for(watch, clock, 59)
    assert notes.all == [None]


def test_a_loop_that_has_not_begun_is_not_watched(clock: Clock, notes: Notes) -> None:
    look_for(LoopWatch(LIMIT, notes, clock), clock, 1000)
    assert notes.all == [None]


def test_a_loop_that_hangs_is_told_once_with_where_it_is(clock: Clock, notes: Notes) -> None:
    watch = LoopWatch(LIMIT, notes, clock)
    with a_loop_that_hangs(watch), capture_logs() as logged:
        look_for(watch, clock, 60)
        assert notes.last is None
        look_for(watch, clock, 100)
    assert len(notes.all) == 2
    assert "the loop has not turned for over 60 s" in str(notes.last)
    assert "hang_in_the_model" in str(notes.last)
    [line] = logged
    assert (line["log_level"], line["for_seconds"]) == ("error", 60)
    assert "hang_in_the_model" in line["at"]


def test_a_loop_that_turns_again_is_told_and_watched_again(clock: Clock, notes: Notes) -> None:
    watch = LoopWatch(LIMIT, notes, clock)
    watch.turned()
    look_for(watch, clock, 62)
    with capture_logs() as logged:
        watch.turned()
        look_for(watch, clock, 1)
    assert [line["event"] for line in logged] == ["the loop turns again"]
    assert notes.last is None
    look_for(watch, clock, 62)
    assert notes.last is not None


def test_time_in_which_the_process_was_stopped_does_not_count(clock: Clock, notes: Notes) -> None:
    watch = LoopWatch(LIMIT, notes, clock)
    watch.turned()
    look_for(watch, clock, 10)
    clock.now += 10_000
    look_for(watch, clock, 40)
    assert notes.all == [None]


# Partitions


def reading(position: int = 10, *, lag: int = 5, paused: bool = False) -> Reading:
    return Reading(position, position + lag, None, paused)


def view_for(watch: PartitionWatch, clock: Clock, seconds: int, drained: bool = True, **partition: Any) -> None:
    """Show one partition every second, while another one moves."""
    for second in range(seconds):
        clock.now += 1
        watch.look({RIDES_3: reading(**partition), RIDES_4: reading(second)}, drained=drained)


def test_a_partition_that_stands_still_is_told_once_by_name(clock: Clock, notes: Notes) -> None:
    watch = PartitionWatch(LIMIT, notes, clock)
    with capture_logs() as logged:
        view_for(watch, clock, 60)
        assert watch.stalled == set()
        view_for(watch, clock, 100)
    assert watch.stalled == {RIDES_3}
    assert notes.all == [None, "not read for over 60 s although there are records: ride_started [3]"]
    [line] = logged
    assert (line["partition"], line["position"], line["lag"]) == ("ride_started [3]", 10, 5)


@pytest.mark.parametrize(
    "partition", [{"lag": 0}, {"paused": True}, {"drained": False}], ids=["nothing to read", "paused", "others first"]
)
def test_a_partition_that_need_not_move_is_not_stalled(clock: Clock, notes: Notes, partition: dict[str, Any]) -> None:
    watch = PartitionWatch(LIMIT, notes, clock)
    view_for(watch, clock, 1000, **partition)
    assert notes.all == [None]


def test_a_partition_of_which_no_end_is_known_is_not_stalled(clock: Clock, notes: Notes) -> None:
    watch = PartitionWatch(LIMIT, notes, clock)
    for _ in range(1000):
        clock.now += 1
        watch.look({RIDES_3: Reading(0, None, None, paused=False)}, drained=True)
    assert notes.all == [None]


def test_a_partition_that_was_read_starts_anew(clock: Clock, notes: Notes) -> None:
    watch = PartitionWatch(LIMIT, notes, clock)
    view_for(watch, clock, 50, position=10)
    view_for(watch, clock, 50, position=11)
    assert notes.all == [None]


def test_a_partition_that_is_read_again_is_told(clock: Clock, notes: Notes) -> None:
    watch = PartitionWatch(LIMIT, notes, clock)
    view_for(watch, clock, 62)
    with capture_logs() as logged:
        view_for(watch, clock, 1, position=11)
    assert [(line["event"], line["partition"]) for line in logged] == [
        ("a partition is read again", "ride_started [3]")
    ]
    assert (notes.last, watch.stalled) == (None, set())


def test_a_partition_that_went_to_another_worker_is_not_stalled_here(clock: Clock, notes: Notes) -> None:
    watch = PartitionWatch(LIMIT, notes, clock)
    view_for(watch, clock, 62)
    with capture_logs() as logged:
        watch.look({}, drained=True)
    assert (notes.last, watch.stalled, logged) == (None, set(), [])


def test_a_worker_that_was_stopped_for_long_has_no_stalled_partition(clock: Clock, notes: Notes) -> None:
    watch = PartitionWatch(LIMIT, notes, clock)
    view_for(watch, clock, 10)
    clock.now += 10_000
    view_for(watch, clock, 40)
    assert notes.all == [None]
