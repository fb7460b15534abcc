"""Dead letters: what they say, and when there are too many; and how the records at fault are found."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from braidstream.errors import FatalError, PoisonRecord, RetriableError
from braidstream.events import Events
from braidstream.streaming.dead_letters import MAX_HEADER, PREFIX, DeadLetterLimit, dead_letter
from braidstream.streaming.processor import DeadLetters, Output, Work, isolate
from schemas.ride_started import RideStarted
from tests.unit.events import ride


def record(**changes: object) -> Message:
    fields: dict[str, object] = {
        "topic": "ride_started",
        "partition": 3,
        "offset": 42,
        "key": b"ride-1",
        "value": b"\xff\x00",
        "headers": [("trace", b"\x01"), ("trace", b"\x02")],
    }
    return Message(**(fields | changes))  # type: ignore[arg-type]


def context(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    return {name.removeprefix(PREFIX): (value or b"").decode() for name, value in headers if name.startswith(PREFIX)}


def test_a_dead_letter_is_the_record_and_says_where_from_and_why() -> None:
    *letter, headers = dead_letter("dead_letters", record(), PoisonRecord("KEY_CONVERTER", "the key is wrong"), "tip")
    assert letter == ["dead_letters", 3, b"ride-1", b"\xff\x00"]
    assert headers[:2] == [("trace", b"\x01"), ("trace", b"\x02")]
    assert context(headers) == {
        "topic": "ride_started",
        "partition": "3",
        "offset": "42",
        "stage": "KEY_CONVERTER",
        "exception.class.name": "braidstream.errors.PoisonRecord",
        "exception.message": "the key is wrong",
        "group": "tip",
    }


def test_the_cause_of_poison_names_the_class() -> None:
    error = PoisonRecord("VALUE_CONVERTER", "not readable")
    error.__cause__ = EOFError()
    assert context(dead_letter("d", record(), error, "g")[-1])["exception.class.name"] == "builtins.EOFError"


def test_what_a_handler_raises_is_a_transformation_error() -> None:
    said = context(dead_letter("d", record(), ZeroDivisionError("division by zero"), "g")[-1])
    assert said["stage"] == "TRANSFORMATION"
    assert said["exception.class.name"] == "builtins.ZeroDivisionError"


def test_a_record_without_key_value_or_headers_is_kept_as_it_is() -> None:
    _, _, key, value, headers = dead_letter("d", record(key=None, value=None, headers=None), ValueError("x"), "g")
    assert (key, value) == (None, None)
    assert all(name.startswith(PREFIX) for name, _ in headers)


def test_a_dead_letter_that_is_read_again_says_why_once() -> None:
    *_, first = dead_letter("d", record(), ValueError("first"), "g")
    *_, second = dead_letter("d2", record(topic="d", headers=first), ValueError("second"), "g")
    assert [value for name, value in second if name == f"{PREFIX}exception.message"] == [b"second"]
    assert second[:2] == [("trace", b"\x01"), ("trace", b"\x02")]


@pytest.mark.parametrize("text", ["x" * 100_000, "é" * 100_000, "\ud800"])
def test_headers_are_short_whatever_the_error_says(text: str) -> None:
    *_, headers = dead_letter("d", record(), ValueError(text), text)
    assert all(len(value or b"") <= MAX_HEADER for _, value in headers)


def test_the_limit_is_a_run_of_dead_letters() -> None:
    limit = DeadLetterLimit(run=3, share=1.0)
    limit.observe([True, True, False, True, True])
    with pytest.raises(FatalError, match=r"3 records in a row went to the dead letters \(DEAD_LETTER_RUN\)"):
        limit.observe([True])


def test_one_good_record_ends_a_run() -> None:
    limit = DeadLetterLimit(run=3, share=1.0)
    for _ in range(100):
        limit.observe([True, True, False])
        limit.commit()


def test_records_that_come_again_after_a_rollback_count_once() -> None:
    limit = DeadLetterLimit(run=100, share=1.0)
    for _ in range(10):
        limit.observe([True] * 60)
        limit.rollback()
    limit.observe([True] * 60)
    limit.commit()
    with pytest.raises(FatalError, match="100 records in a row"):
        limit.observe([True] * 60)


def test_the_limit_is_a_share_of_the_last_records() -> None:
    limit = DeadLetterLimit(run=1000, share=0.5, window=10)
    for batch in ([True, False] * 5, [False] * 10, [True, False] * 5):
        limit.observe(batch)
        limit.commit()
    with pytest.raises(FatalError, match=r"of the last \d+ records went to the dead letters \(DEAD_LETTER_SHARE\)"):
        limit.observe([True, True, False])


def test_the_share_is_not_looked_at_before_there_are_enough_records() -> None:
    DeadLetterLimit(run=1000, share=0.5, window=10).observe([True] * 9)


@given(st.lists(st.lists(st.booleans(), max_size=30), max_size=30))
def test_the_share_is_over_whole_batches_that_reach_back_a_window(batches: list[list[bool]]) -> None:
    limit = DeadLetterLimit(run=10_000, share=0.5, window=20)
    seen: list[list[bool]] = []
    for batch in batches:
        seen.append(batch)
        recent: list[bool] = []
        for earlier in reversed(seen):
            recent += earlier
            if len(recent) >= 20:
                break
        too_many = len(recent) >= 20 and sum(recent) > len(recent) / 2
        if not too_many:
            limit.observe(batch)
        else:
            with pytest.raises(FatalError):
                limit.observe(batch)
        limit.commit()


def test_dead_letters_are_added_in_the_order_of_their_records_and_counted() -> None:
    records = [record(offset=offset) for offset in range(4)]
    work = Work()
    letters = DeadLetters("dead_letters", "tip", DeadLetterLimit(run=10, share=1.0))
    letters.add(work, records, {3: ValueError("d"), 1: ValueError("b")})
    letters.add(work, records, {})
    assert [context(headers)["offset"] for *_, headers in work.records] == ["1", "3"]
    assert work.counts == Counter(dead_letters=2)


def rides_of(names: Iterable[str]) -> Events[RideStarted]:
    return Events.of(RideStarted, [ride(name) for name in names], [*names])


class Touchy:
    """A handler that raises when one of the poison rides is in the batch."""

    def __init__(self, poison: set[str]) -> None:
        self.calls = 0
        self._poison = poison

    def __call__(self, rides: Events[RideStarted]) -> Sequence[Sequence[Output]]:
        self.calls += 1
        for event in rides:
            if event.ride_id in self._poison:
                raise ValueError(event.ride_id)
        return [[("predictions", key.encode(), b"")] for key in rides.keys]


@given(st.integers(0, 100), st.data())
def test_isolate_finds_exactly_the_poison_and_keeps_the_order(count: int, data: st.DataObject) -> None:
    ids = [str(number) for number in range(count)]
    poison = data.draw(st.sets(st.sampled_from(ids), max_size=10)) if ids else set()
    handle = Touchy(poison)
    results = isolate(handle, rides_of(ids))
    assert [_subject(result) for result in results] == ids
    assert {ids[at] for at, result in enumerate(results) if isinstance(result, Exception)} == poison
    depth = math.ceil(math.log2(count)) if count > 1 else 0
    assert handle.calls <= min(count > 0, count) + 2 * depth * len(poison)


def _subject(result: Sequence[Output] | Exception) -> str:
    if isinstance(result, Exception):
        return str(result)
    [(_, key, _)] = result
    return key.decode()


@pytest.mark.parametrize("error", [RetriableError("later"), FatalError("stop")])
def test_isolate_leaves_alone_what_is_not_the_records_fault(error: Exception) -> None:
    calls = []

    def handle(rides: Events[RideStarted]) -> Sequence[Sequence[Output]]:
        calls.append(len(rides))
        raise error

    with pytest.raises(type(error)):
        isolate(handle, rides_of("ab"))
    assert calls == [2]


def test_a_handler_that_returns_too_few_lists_stops_the_worker() -> None:
    with pytest.raises(FatalError, match="the handler returned 1 lists of outputs for 2 events"):
        isolate(lambda _: [[]], rides_of("ab"))
