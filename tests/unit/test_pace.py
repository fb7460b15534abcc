"""When rides are due."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from producer.pace import MAX_GAP, AtOnce, Pace, Rate, Timetable, compressed

START = datetime(2023, 2, 1)  # noqa: DTZ001 - the city's local time
ROUNDING = 1e-6

gaps = st.lists(st.integers(0, 7 * 86_400), max_size=60)
factors = st.floats(1e-3, 1e6)
numbers = st.integers(0, 10**9)
ramps = st.builds(Rate, factors, factors, st.floats(0.1, 1e5))


def pickups(seconds_between: list[int]) -> NDArray[np.datetime64]:
    times = [START]
    for seconds in seconds_between:
        times.append(times[-1] + timedelta(seconds=seconds))
    return np.array(times, "datetime64[ms]")


def require_consistent(pace: Pace, ride: int) -> None:
    """A ride is ready when it is due and not before, to a rounding."""
    due = pace.due(ride)
    slack = ROUNDING * max(due, 1.0)
    assert pace.ready(due + slack) > ride
    if due > slack:
        assert pace.ready(due - slack) <= ride or pace.due(ride) <= pace.due(ride - 1) + slack


def test_at_once() -> None:
    assert AtOnce().due(3) == 0.0
    assert AtOnce().ready(0.0) > 10**12


def test_at_a_rate() -> None:
    rate = Rate(4, 4)
    assert [rate.due(ride) for ride in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [rate.ready(seconds) for seconds in (0.0, 0.2, 0.25, 1.1)] == [1, 1, 2, 5]


def test_any_rate_that_is_a_number() -> None:
    rate = Rate(sys.float_info.max, sys.float_info.max)
    assert rate.due(1) == pytest.approx(0.0)
    assert rate.ready(2.0) == 1 + sys.maxsize


def test_a_rate_that_rises_and_stays() -> None:
    rate = Rate(100, 300, 10)
    assert rate.ready(10.0) == 2001
    assert rate.due(2000) == pytest.approx(10.0)
    assert rate.ready(11.0) - rate.ready(10.0) == 300
    assert rate.due(2600) == pytest.approx(12.0)


def test_a_rate_that_falls_and_stays() -> None:
    rate = Rate(300, 100, 10)
    assert rate.due(2000) == pytest.approx(10.0)
    assert rate.ready(5.0) == 1251
    assert rate.due(2100) == pytest.approx(11.0)


@given(factors, numbers)
def test_a_rate_does_not_drift(rate: float, ride: int) -> None:
    assert Rate(rate, rate).due(ride) == pytest.approx(ride / rate)
    assert Rate(rate, rate, 60.0).due(ride) == pytest.approx(ride / rate)


@given(ramps, numbers)
@example(Rate(1e6, 1e-3, 1e5), 50_000_000_050)
def test_a_changing_rate_is_ready_when_it_is_due(rate: Rate, ride: int) -> None:
    require_consistent(rate, ride)
    assert rate.due(0) == 0.0
    assert rate.due(ride) <= rate.due(ride + 1)


@given(ramps, st.floats(0, 3))
def test_as_many_are_ready_as_the_rate_adds_up_to(rate: Rate, share: float) -> None:
    at = share * rate.seconds
    changing, staying = min(at, rate.seconds), max(at - rate.seconds, 0.0)
    middles = (np.arange(1000) + 0.5) / 1000 * changing
    rates = rate.first + (rate.last - rate.first) * middles / rate.seconds
    expected = float(rates.sum()) * changing / 1000 + staying * rate.last
    assert rate.ready(at) == pytest.approx(expected, rel=1e-6, abs=1.5)


def test_compressed_keeps_the_gaps() -> None:
    assert compressed(pickups([60, 0, 120]), 60).tolist() == [0.0, 1.0, 1.0, 3.0]


def test_compressed_gaps_are_capped_after_the_speedup() -> None:
    assert compressed(pickups([86_400, 300, 30]), 30).tolist() == [0.0, 10.0, 20.0, 21.0]


def test_a_pickup_that_goes_back_is_due_at_once() -> None:
    assert compressed(pickups([-3600, 3600]), 3600).tolist() == [0.0, 0.0, 1.0]


@given(gaps, factors)
def test_compressed_never_early_capped_and_in_order(seconds_between: list[int], speedup: float) -> None:
    times = pickups(seconds_between)
    due = compressed(times, speedup).tolist()
    assert len(due) == len(times)
    assert due[0] == 0.0
    for (one, other), seconds in zip(pairwise(due), seconds_between, strict=True):
        gap = other - one
        assert 0 <= gap <= MAX_GAP + ROUNDING
        assert gap == pytest.approx(min(seconds / speedup, MAX_GAP), abs=ROUNDING)


def test_a_timetable_goes_round_and_round() -> None:
    pace = Timetable(np.array([0.0, 1.0, 1.0, 3.0]))
    assert [pace.due(ride) for ride in range(9)] == [0, 1, 1, 3, 3, 4, 4, 6, 6]
    assert [pace.ready(seconds) for seconds in (0.0, 1.0, 2.9, 3.0, 4.0, 6.0)] == [1, 3, 3, 5, 7, 9]


def test_a_timetable_begins_where_it_is_told() -> None:
    pace = Timetable(np.array([0.0, 1.0, 1.0, 3.0]), first=6)
    assert [pace.due(ride) for ride in range(4)] == [0, 2, 2, 3]
    assert [pace.ready(seconds) for seconds in (0.0, 2.0, 3.0)] == [1, 3, 5]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20), numbers, st.integers(0, 1000))
def test_a_timetable_is_ready_when_it_is_due(seconds_between: list[int], first: int, ride: int) -> None:
    require_consistent(Timetable(compressed(pickups(seconds_between), 60), first), ride)


def test_rides_of_one_time_are_due_together() -> None:
    assert Timetable(np.zeros(3)).ready(0.0) >= 3
