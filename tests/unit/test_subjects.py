"""What is known of many subjects takes little memory, and comes back as it was."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from braidstream.avro import LocalSchemas
from braidstream.deciding.policy import Evidence
from braidstream.deciding.subjects import Outcome, State, Subjects
from braidstream.streaming.state_codecs import StateCodec
from rides.pipeline import RIDES

STATE = RIDES.decision_state.event_type
FORMAT = StateCodec(STATE, LocalSchemas(STATE), "decision_state")
OPEN = State(b"event", ("duration", "tip"), (Evidence("duration", "1", 1.5),), 1, 100, None)
CLOSED = OPEN._replace(expires_at=1000, outcome=Outcome(0, "accept", complete=False))
WAITING = OPEN._replace(event=None, expected=())


def closed(number: int) -> State:
    return State(b"e" * 60, ("duration", "tip"), evidence(number), 1, 1000, Outcome(0, "accept", complete=True))


def opened(number: int) -> State:
    return State(b"e" * (60 + number % 2), ("duration", "tip"), evidence(number), 1, 1000, None)


def evidence(number: int) -> tuple[Evidence, ...]:
    return (Evidence("duration", "1", number + 0.5), Evidence("tip", "1", number + 0.25))


@pytest.mark.parametrize(("make", "most"), [(opened, 1000), (closed, 500)])
def test_a_subject_takes_few_bytes(make: Callable[[int], State], most: int) -> None:
    count = 5000
    subjects = Subjects(FORMAT)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            subjects.put(f"{number:032x}", make(number))
            if number % 100 == 0:
                subjects.commit()
        subjects.commit()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / count < most


@pytest.mark.parametrize("first", [WAITING, OPEN, CLOSED], ids=["waiting", "open", "closed"])
@pytest.mark.parametrize("second", [WAITING, OPEN, CLOSED, None], ids=["waiting", "open", "closed", "forgotten"])
def test_a_rollback_brings_back_state_counts_and_expiry(first: State, second: State | None) -> None:
    subjects = Subjects(FORMAT)
    subjects.put("a", first)
    subjects.commit()
    counts = subjects.open, subjects.waiting, len(subjects)
    subjects.put("a", second)
    subjects.rollback()
    assert subjects.get("a") == first
    assert (subjects.open, subjects.waiting, len(subjects)) == counts
    assert subjects.records() == {}
    queue = {WAITING: subjects.waits, OPEN: subjects.deadlines, CLOSED: subjects.memories}[first]
    assert subjects.expires("a", first.expires_at, queue)
    assert [subjects.expires("a", first.expires_at, other) for other in (subjects.waits, subjects.deadlines)].count(
        True
    ) == (first is not CLOSED)


def test_an_entry_counts_only_for_the_time_that_is_true_now() -> None:
    subjects = Subjects(FORMAT)
    subjects.restore("a", CLOSED)
    subjects.restore("a", None)
    subjects.restore("a", CLOSED._replace(expires_at=2000))
    entries = [subjects.memories.pop(3000), subjects.memories.pop(3000)]
    assert entries == [(1000, "a"), (2000, "a")]
    assert [subjects.expires("a", at, subjects.memories) for at in (1000, 2000)] == [False, True]
