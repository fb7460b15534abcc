"""A handler that raises: the events at fault are found in few calls, and everything else goes on, in order."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from braidstream.errors import FatalError, PoisonRecord, RetriableError, SettingsError
from braidstream.events import Events
from braidstream.streaming.handler import Isolation, Result
from schemas.ride_started import RideStarted
from tests.unit.events import ride

Rides = Events[RideStarted]


def rides_of(names: Iterable[str]) -> Rides:
    names = list(names)
    return Events.of(RideStarted, [ride(name) for name in names], names)


class Handler:
    """Raises when a batch is not to its taste, and counts its calls and the events that it was given."""

    def __init__(self, refuses: Callable[[Sequence[str]], bool]) -> None:
        self.calls = 0
        self.handled: list[str] = []
        self._refuses = refuses

    def __call__(self, rides: Rides) -> Sequence[Result]:
        self.calls += 1
        if self._refuses(rides.keys):
            raise ValueError(rides.keys[0])
        self.handled += rides.keys
        return [[("predictions", key.encode(), b"")] for key in rides.keys]


def touchy(poison: set[str]) -> Handler:
    """Raises when one of these rides is in the batch."""
    return Handler(lambda names: not poison.isdisjoint(names))


def isolate(handle: Callable[[Rides], Sequence[Result]], names: Iterable[str], most: int = 1000) -> list[Result]:
    return Isolation(handle, most)(rides_of(names))


def subject(result: Result) -> str:
    if isinstance(result, Exception):
        return str(result)
    [(_, key, _)] = result
    return key.decode()


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def halvings(count: int) -> int:
    return math.ceil(math.log2(max(count, 2)))


@settings(max_examples=300)
@given(st.integers(0, 200), st.data())
def test_exactly_the_poison_is_found_and_the_order_kept(count: int, data: st.DataObject) -> None:
    names = numbers(count)
    poison = data.draw(st.sets(st.sampled_from(names), max_size=10)) if names else set()
    handle = touchy(poison)
    results = isolate(handle, names)
    assert [subject(result) for result in results] == names
    assert {names[at] for at, result in enumerate(results) if isinstance(result, Exception)} == poison
    assert handle.handled == [name for name in names if name not in poison], "something was handled twice"
    assert handle.calls <= 1 + len(poison) * (3 * halvings(count) + 6)


def test_no_event_no_call() -> None:
    handle = touchy(set())
    assert isolate(handle, []) == []
    assert handle.calls == 0


@pytest.mark.parametrize("batch", [500, 5000])
def test_one_in_five_hundred_takes_about_a_dozen_calls(batch: int) -> None:
    """Of a stream that has always been so: a batch is not tried as a whole when that is sure to fail."""
    handle = touchy({str(number) for number in range(250, 50_000, 500)})
    isolation = Isolation(handle, 1000)
    names = numbers(50_000)
    for start in range(0, len(names), batch):
        isolation(rides_of(names[start : start + batch]))
    assert handle.calls / 100 < 15


def test_a_clean_batch_is_one_call_again_soon_after_the_poison() -> None:
    handle = touchy({"7", "9"})
    isolation = Isolation(handle, 1000)
    for _ in range(4):
        isolation(rides_of(numbers(500)))
        isolation(rides_of(str(number) for number in range(1000, 1500)))
    handle.calls = 0
    for _ in range(5):
        isolation(rides_of(str(number) for number in range(1000, 1500)))
    assert handle.calls <= 7


def test_a_handler_that_always_fails_is_called_once_for_each_event() -> None:
    handle = Handler(lambda _: True)
    results = isolate(handle, numbers(900))
    assert [subject(result) for result in results] == numbers(900)
    assert handle.calls <= 900 + halvings(900) + 1


def test_it_stops_at_the_limit_and_does_not_try_the_rest() -> None:
    handle = Handler(lambda _: True)
    with pytest.raises(FatalError, match=r"1000 events in a row .*\(DEAD_LETTER_RUN\).* ValueError: 999"):
        isolate(handle, numbers(5000))
    assert handle.calls <= 1000 + halvings(5000) + 1


def test_events_that_fail_with_others_between_them_are_not_in_a_row() -> None:
    handle = touchy({str(number) for number in range(100) if number % 3})
    assert sum(isinstance(result, Exception) for result in isolate(handle, numbers(100), most=3)) == 66


def test_a_limit_counts_the_events_of_one_batch() -> None:
    """What is done again after an abort must not count twice; the dead letters are counted across batches."""
    isolation = Isolation(Handler(lambda _: True), 5)
    for _ in range(3):
        assert len(isolation(rides_of("abcd"))) == 4


@pytest.mark.parametrize(
    "refuses",
    [lambda names: {"3", "31"} <= set(names), lambda names: len(names) > 7, lambda names: len(names) > 1],
    ids=["two that do not go together", "too many", "more than one"],
)
def test_events_that_fail_only_together_are_handled_apart(refuses: Callable[[Sequence[str]], bool]) -> None:
    handle = Handler(refuses)
    with capture_logs() as logs:
        results = isolate(handle, numbers(50))
    assert [subject(result) for result in results] == numbers(50)
    assert handle.handled == numbers(50)
    assert handle.calls <= 2 * 50
    [line] = logs
    assert (line["log_level"], line["reason"], line["events"]) == ("warning", "ValueError: 0", 50)
    assert "none is at fault" in line["event"]


def test_what_fails_together_is_told_once_a_minute() -> None:
    now = 0.0
    isolation = Isolation(Handler(lambda names: len(names) > 3), 1000, clock=lambda: now)
    with capture_logs() as logs:
        for _ in range(13):
            isolation(rides_of(numbers(50)))
            now += 10.0
    assert len(logs) == 3


def test_poison_is_found_among_events_that_fail_together() -> None:
    handle = Handler(lambda names: len(names) > 7 or "20" in names)
    results = isolate(handle, numbers(50))
    assert [at for at, result in enumerate(results) if isinstance(result, Exception)] == [20]
    assert handle.handled == [name for name in numbers(50) if name != "20"]


class Odd(Exception):
    """An exception that is false."""

    def __bool__(self) -> bool:
        return False


def raising(error: BaseException) -> Handler:
    def refuses(names: Sequence[str]) -> bool:
        if "b" in names:
            raise error
        return False

    return Handler(refuses)


@pytest.mark.parametrize(
    "error",
    [RecursionError("too deep"), PoisonRecord("TRANSFORMATION", "no"), Odd(), StopIteration(), UserWarning("no")],
    ids=lambda error: type(error).__name__,
)
def test_whatever_the_handler_raises_on_an_event_is_that_events(error: Exception) -> None:
    results = isolate(raising(error), "abc")
    assert [isinstance(result, Exception) for result in results] == [False, True, False]
    assert results[1] is error


@pytest.mark.parametrize(
    "error",
    [RetriableError("later"), FatalError("stop"), SettingsError("no such file"), KeyboardInterrupt(), SystemExit(3)],
    ids=lambda error: type(error).__name__,
)
def test_what_is_not_an_events_fault_is_raised_at_once(error: BaseException) -> None:
    handle = raising(error)
    with pytest.raises(type(error)):
        isolate(handle, "abc")
    assert handle.calls == 1


def test_a_batch_that_does_not_fit_into_memory_is_handled_in_parts() -> None:
    def refuses(names: Sequence[str]) -> bool:
        if len(names) > 2:
            raise MemoryError
        return False

    assert [subject(result) for result in isolate(Handler(refuses), "abcdef")] == list("abcdef")


def test_no_memory_for_an_event_alone_says_nothing_of_the_event() -> None:
    with pytest.raises(FatalError, match="there is no memory left to process event 'b'"):
        isolate(raising(MemoryError()), "abc")


def test_a_handler_that_warns_is_not_one_that_fails() -> None:
    def handle(rides: Rides) -> Sequence[Result]:
        warnings.warn("divided by zero", RuntimeWarning, stacklevel=1)
        return [[] for _ in rides.keys]

    with pytest.warns(RuntimeWarning, match="divided by zero"):
        assert isolate(handle, "ab") == [[], []]


def test_a_result_that_is_an_exception_is_passed_on_and_costs_no_call() -> None:
    error = ValueError("not finite")
    handle = Handler(lambda _: False)
    found = isolate(lambda rides: [error, *handle(rides)[1:]], "abc")
    assert found[0] is error
    assert [subject(result) for result in found[1:]] == ["b", "c"]
    assert handle.calls == 1


@pytest.mark.parametrize(
    ("returned", "named"),
    [([[]], "1 results"), ([[], [], []], "3 results"), (None, "NoneType"), (iter([[], []]), "list_iterator")],
    ids=["too few", "too many", "nothing", "no sequence"],
)
def test_anything_but_one_result_for_each_event_stops_the_worker(returned: Any, named: str) -> None:
    with pytest.raises(FatalError, match=f"the handler returned {named} for 2 events"):
        isolate(lambda _: returned, "ab")
