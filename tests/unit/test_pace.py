"""When rides are due."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from producer.pace import MAX_GAP, at_once, at_rate, compressed

START = datetime(2023, 2, 1)  # noqa: DTZ001 - the city's local time
ROUNDING = 1e-6

gaps = st.lists(st.integers(0, 7 * 86_400), max_size=60)
factors = st.floats(1e-3, 1e6)


def pickups(seconds_between: list[int]) -> NDArray[np.datetime64]:
    times = [START]
    for seconds in seconds_between:
        times.append(times[-1] + timedelta(seconds=seconds))
    return np.array(times, "datetime64[ms]")


def test_at_once() -> None:
    assert at_once(3).tolist() == [0.0, 0.0, 0.0]


def test_at_rate() -> None:
    assert at_rate(5, 4).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


@given(factors)
def test_a_rate_does_not_drift(rate: float) -> None:
    assert at_rate(10_001, rate)[10_000] == pytest.approx(10_000 / rate)


def test_compressed_keeps_the_gaps() -> None:
    assert compressed(pickups([60, 0, 120]), 60).tolist() == [0.0, 1.0, 1.0, 3.0]


def test_compressed_gaps_are_capped_after_the_speedup() -> None:
    assert compressed(pickups([86_400, 300, 30]), 30).tolist() == [0.0, 10.0, 20.0, 21.0]


def test_a_pickup_that_goes_back_is_due_at_once() -> None:
    assert compressed(pickups([-3600, 3600]), 3600).tolist() == [0.0, 0.0, 1.0]


def test_nothing_is_due_without_pickups() -> None:
    assert compressed(np.array([], "datetime64[ms]"), 60).tolist() == []


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
