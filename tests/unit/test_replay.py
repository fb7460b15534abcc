"""Sending rides when they are due, by a clock that the tests move."""

from __future__ import annotations

import os
import signal
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress

from braidstream.errors import FatalError
from producer.pace import AtOnce, Rate
from producer.progress import Bar, PlainProgress, bytes_fetched, rides_sent
from producer.replay import replay
from producer.stop import stop_on_signals

NOW = AtOnce()
"""Every event is due at the start."""


def batches(count: int, size: int = 3) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """So many events, of which each is its number: its key in decimal, its value in two bytes."""
    for first in range(0, count, size):
        numbers = range(first, min(first + size, count))
        yield [b"%d" % number for number in numbers], [number.to_bytes(2, "big") for number in numbers]


class Given:
    """A pace of given times."""

    def __init__(self, times: Sequence[float]) -> None:
        self._times = times

    def due(self, ride: int) -> float:
        return self._times[ride]

    def ready(self, seconds: float) -> int:
        return bisect_right(self._times, seconds)


class Recorder:
    """A writer, and the clock that goes on while it polls; notes when what was sent."""

    def __init__(self, on_poll: Callable[[], None] = lambda: None, fails_at: int | None = None) -> None:
        self.now = 1000.0
        self.acknowledged = 0
        self.sent: list[tuple[float, int]] = []
        self.polls: list[float] = []
        self._on_poll = on_poll
        self._fails_at = fails_at

    @property
    def events(self) -> list[int]:
        return [event for _, event in self.sent]

    def clock(self) -> float:
        return self.now

    def send_many(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        for key, value in zip(keys, values, strict=True):
            event = int.from_bytes(value, "big")
            assert int(key) == event
            if event == self._fails_at:
                raise FatalError("refused")
            self.sent.append((self.now - 1000.0, event))

    def poll(self, timeout: float) -> None:
        self.polls.append(timeout)
        self.now += timeout
        self._on_poll()

    def flush(self) -> None:
        self.acknowledged = len(self.sent)


def test_everything_at_once() -> None:
    writer = Recorder()
    assert replay(batches(1000), writer, pace=AtOnce(), clock=writer.clock) == 1000
    assert writer.events == list(range(1000))
    assert writer.acknowledged == 1000
    assert writer.polls == []


def test_at_a_rate() -> None:
    writer = Recorder()
    replay(batches(5), writer, pace=Rate(2, 2), clock=writer.clock)
    assert [at for at, _ in writer.sent] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0], abs=0.002)


@given(st.lists(st.floats(0, 30), max_size=20).map(sorted), st.integers(1, 20))
def test_never_early_and_hardly_late(due: list[float], size: int) -> None:
    writer = Recorder()
    assert replay(batches(len(due), size), writer, pace=Given(due), clock=writer.clock) == len(due)
    assert writer.events == list(range(len(due)))
    for (at, _), offset in zip(writer.sent, due, strict=True):
        assert offset <= at + 1e-9
        assert at <= offset + 0.002


def test_long_waits_serve_acknowledgements_often() -> None:
    writer = Recorder()
    replay(batches(2), writer, pace=Given([0.0, 10.0]), clock=writer.clock)
    assert len(writer.polls) >= 100
    assert max(writer.polls) <= 0.1


def test_what_is_late_is_sent_at_once() -> None:
    writer = Recorder()

    def slowly() -> Iterator[tuple[list[bytes], list[bytes]]]:
        for batch, delay in zip(batches(4, size=1), [0.0, 3.0, 0.0, 0.0], strict=True):
            writer.now += delay
            yield batch

    replay(slowly(), writer, pace=Given([0.0, 1.0, 2.0, 4.0]), clock=writer.clock)
    assert [at for at, _ in writer.sent] == pytest.approx([0.0, 3.0, 3.0, 4.0], abs=0.002)


def test_only_what_is_due_goes_together() -> None:
    writer = Recorder()
    replay(batches(6, size=6), writer, pace=Given([0.0, 0.0, 0.0, 1.0, 1.0, 2.0]), clock=writer.clock)
    assert [at for at, _ in writer.sent] == pytest.approx([0.0, 0.0, 0.0, 1.0, 1.0, 2.0], abs=0.002)


def test_limit_holds_the_next_event_until_it_rises() -> None:
    writer = Recorder()
    sent: list[int] = []

    def two_before_the_consumer() -> int:
        sent.append(len(writer.sent))
        return 2 + len(writer.polls)

    assert replay(batches(5), writer, pace=NOW, clock=writer.clock, limit=two_before_the_consumer) == 5
    assert len(writer.polls) == 3
    assert sent == [0, 2, 2, 3, 3, 4, 4]


def test_stop_ends_the_sending_and_waits_for_what_was_sent() -> None:
    writer = Recorder()
    assert replay(batches(9, size=2), writer, pace=NOW, clock=writer.clock, stop=lambda: len(writer.sent) == 4) == 4
    assert writer.events == [0, 1, 2, 3]
    assert writer.acknowledged == 4


@pytest.mark.parametrize("held", ["by its due time", "by the limit"])
def test_stop_ends_a_wait(held: str) -> None:
    writer = Recorder()
    sent = replay(
        batches(2),
        writer,
        pace=Given([0.0, 3600.0]) if held == "by its due time" else NOW,
        clock=writer.clock,
        limit=lambda: 9 if held == "by its due time" else 1,
        stop=lambda: len(writer.polls) == 3,
    )
    assert sent == 1
    assert writer.now < 1001


def test_a_refused_event_ends_the_replay() -> None:
    writer = Recorder(fails_at=3)
    with pytest.raises(FatalError, match="refused"):
        replay(batches(9), writer, pace=NOW, clock=writer.clock)
    assert writer.events == [0, 1, 2]


def test_progress_is_told_while_sending_while_waiting_and_at_the_end() -> None:
    writer = Recorder()
    told: list[int] = []
    replay(batches(450, size=200), writer, pace=NOW, clock=writer.clock, progress=told.append)
    assert told == [200, 400, 450, 450]
    told.clear()
    replay(batches(2), writer, pace=Given([0.0, 0.35]), clock=writer.clock, progress=told.append)
    assert set(told[:-2]) == {1}
    assert told[-2:] == [2, 2]
    assert len(told) >= 4


def test_plain_progress_speaks_every_five_seconds_of_the_time_since() -> None:
    now = 50.0
    said: list[str] = []
    progress = PlainProgress(rides_sent, said.append, lambda: now)
    for now, sent in [(50.0, 0), (54.9, 1000), (55.0, 2000), (57.0, 2500), (60.0, 5000)]:  # noqa: B007
        progress(sent, 10_000)
    assert said == [
        "2,000 of 10,000 rides sent, 400 a second, about 20 s left",
        "5,000 of 10,000 rides sent, 600 a second, about 8 s left",
    ]


def test_plain_progress_before_the_first_ride() -> None:
    said: list[str] = []
    times = iter([0.0, 6.0])
    PlainProgress(rides_sent, said.append, lambda: next(times))(0, 10)
    assert said == ["0 of 10 rides sent, 0 a second"]


def test_plain_progress_is_not_faster_for_what_was_there_before() -> None:
    said: list[str] = []
    times = iter([0.0, 1.0, 10.0])
    progress = PlainProgress(bytes_fetched("green"), said.append, lambda: next(times))
    progress(40_000_000, 50_000_000)
    progress(45_000_000, 50_000_000)
    assert said == ["green: 45.0 of 50.0 MB, 0.5 MB a second, about 10 s left"]


def test_what_is_said_beside_a_bar_is_said_as_it_stands() -> None:
    screen = StringIO()
    with Progress(console=Console(file=screen, force_terminal=True)) as bar:
        Bar(bar, "rides sent", 1).say("as runs[a]/replay[/a].json says")
    assert "as runs[a]/replay[/a].json says" in screen.getvalue()


def test_progress_without_an_end_and_of_bytes() -> None:
    assert rides_sent(5000, None, 600.0) == "5,000 rides sent, 600 a second"
    words = bytes_fetched("green 2023-01")
    assert words(1_250_000, 5_000_000, 750_000) == "green 2023-01: 1.2 of 5.0 MB, 0.8 MB a second, about 5 s left"
    assert words(1_250_000, None, 0.0) == "green 2023-01: 1.2 MB, 0.0 MB a second"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_a_second_one_acts_as_before(number: signal.Signals) -> None:
    heard: list[int] = []
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    for each in before:
        signal.signal(each, lambda number, _frame: heard.append(number))
    try:
        with stop_on_signals() as stop:
            assert not stop()
            os.kill(os.getpid(), number)
            assert stop()
            assert stop.received is number
            assert heard == []
            os.kill(os.getpid(), number)
            assert heard == [number]
        with stop_on_signals():
            pass
        os.kill(os.getpid(), number)
        assert heard == [number, number]
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
