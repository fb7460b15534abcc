"""Sending rides when they are due, by a clock that the tests move."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braidstream.errors import FatalError
from producer.pace import at_once, at_rate
from producer.progress import PlainProgress
from producer.replay import replay
from producer.stop import stop_on_signals


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

    def send(self, event: int) -> None:
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
    assert replay(range(1000), writer, due=at_once(), clock=writer.clock) == 1000
    assert writer.events == list(range(1000))
    assert writer.acknowledged == 1000
    assert writer.polls == []


def test_at_a_rate() -> None:
    writer = Recorder()
    replay(range(5), writer, due=at_rate(2), clock=writer.clock)
    assert [at for at, _ in writer.sent] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0], abs=0.002)


@given(st.lists(st.floats(0, 30), max_size=20).map(sorted))
def test_never_early_and_hardly_late(due: list[float]) -> None:
    writer = Recorder()
    assert replay(range(len(due)), writer, due=due, clock=writer.clock) == len(due)
    assert writer.events == list(range(len(due)))
    for (at, _), offset in zip(writer.sent, due, strict=True):
        assert offset <= at + 1e-9
        assert at <= offset + 0.002


def test_long_waits_serve_acknowledgements_often() -> None:
    writer = Recorder()
    replay(range(2), writer, due=[0.0, 10.0], clock=writer.clock)
    assert len(writer.polls) >= 100
    assert max(writer.polls) <= 0.1


def test_what_is_late_is_sent_at_once() -> None:
    writer = Recorder()

    def events() -> Iterator[int]:
        for event in range(4):
            writer.now += 3.0 if event == 1 else 0.0
            yield event

    replay(events(), writer, due=[0.0, 1.0, 2.0, 4.0], clock=writer.clock)
    assert [at for at, _ in writer.sent] == pytest.approx([0.0, 3.0, 3.0, 4.0], abs=0.002)


def test_gate_holds_the_next_event_until_it_opens() -> None:
    writer = Recorder()
    asked: list[int] = []

    def within_two_of_the_consumer(sent: int) -> bool:
        asked.append(sent)
        return sent - len(writer.polls) < 2

    assert replay(range(5), writer, due=at_once(), clock=writer.clock, gate=within_two_of_the_consumer) == 5
    assert len(writer.polls) == 3
    assert asked == [0, 1, 2, 2, 3, 3, 4, 4]


def test_stop_ends_the_sending_and_waits_for_what_was_sent() -> None:
    writer = Recorder()
    assert replay(range(9), writer, due=at_once(), clock=writer.clock, stop=lambda: len(writer.sent) == 4) == 4
    assert writer.events == [0, 1, 2, 3]
    assert writer.acknowledged == 4


@pytest.mark.parametrize("held", ["by its due time", "by the gate"])
def test_stop_ends_a_wait(held: str) -> None:
    writer = Recorder()
    sent = replay(
        range(9),
        writer,
        due=[0.0, 3600.0] if held == "by its due time" else at_once(),
        clock=writer.clock,
        gate=lambda sent: held == "by its due time" or sent == 0,
        stop=lambda: len(writer.polls) == 3,
    )
    assert sent == 1
    assert writer.now < 1001


def test_a_refused_event_ends_the_replay() -> None:
    writer = Recorder(fails_at=3)
    with pytest.raises(FatalError, match="refused"):
        replay(range(9), writer, due=at_once(), clock=writer.clock)
    assert writer.events == [0, 1, 2]


def test_progress_is_told_while_sending_while_waiting_and_at_the_end() -> None:
    writer = Recorder()
    told: list[int] = []
    replay(range(450), writer, due=at_once(), clock=writer.clock, progress=told.append)
    assert told == [100, 200, 300, 400, 450]
    told.clear()
    replay(range(2), writer, due=[0.0, 0.35], clock=writer.clock, progress=told.append)
    assert set(told[:-1]) == {1}
    assert len(told) >= 4


def test_plain_progress_speaks_every_five_seconds() -> None:
    now = 50.0
    said: list[str] = []
    progress = PlainProgress(10_000, said.append, lambda: now)
    for now, sent in [(50.0, 0), (54.9, 1000), (55.0, 2000), (57.0, 2500), (60.0, 5000)]:  # noqa: B007
        progress(sent)
    assert said == [
        "2,000 of 10,000 rides sent, 400 a second, about 20 s left",
        "5,000 of 10,000 rides sent, 500 a second, about 10 s left",
    ]


def test_plain_progress_before_the_first_ride() -> None:
    said: list[str] = []
    times = iter([0.0, 6.0])
    PlainProgress(10, said.append, lambda: next(times))(0)
    assert said == ["0 of 10 rides sent, 0 a second"]


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
