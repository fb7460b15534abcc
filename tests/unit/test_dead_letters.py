"""Dead letters: what they say, and when there are too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from braidstream.deciding.join import PolicyError
from braidstream.errors import FatalError, PoisonRecord
from braidstream.streaming.dead_letters import MAX_HEADER, PREFIX, DeadLetterLimit, dead_letter
from braidstream.streaming.processor import DeadLetters, Work


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


def raised(error: Exception, depth: int = 0) -> Exception:
    """The error as it is after it was raised so many calls deep."""

    def fail(left: int) -> None:
        if left:
            fail(left - 1)
        raise error

    with pytest.raises(type(error)):
        fail(depth)
    return error


def test_the_stack_trace_ends_where_the_error_was_raised_and_is_short() -> None:
    said = context(dead_letter("d", record(), raised(ValueError("x"), depth=100), "g")[-1])
    lines = said["exception.stacktrace"].splitlines()
    assert lines[-1] == "ValueError: x"
    assert "raise error" in lines[-2]
    assert sum(line.startswith("  File ") for line in lines) <= 10


def test_of_a_long_stack_trace_the_end_is_kept() -> None:
    *_, headers = dead_letter("d", record(), raised(ValueError("x" * 10_000 + "end")), "g")
    [trace] = [value or b"" for name, value in headers if name == f"{PREFIX}exception.stacktrace"]
    assert len(trace) == MAX_HEADER
    assert trace.endswith(b"end\n")


def test_what_cannot_be_read_has_no_stack_trace() -> None:
    error = raised(PoisonRecord("VALUE_CONVERTER", "not readable"))
    assert "exception.stacktrace" not in context(dead_letter("d", record(), error, "g")[-1])


def test_a_policy_s_error_is_named_by_what_the_policy_raised() -> None:
    error = PolicyError("ride-1", LookupError("no rule"))
    error.__cause__ = raised(LookupError("no rule"))
    said = context(dead_letter("d", record(), error, "g")[-1])
    assert said["exception.class.name"] == "builtins.LookupError"
    assert said["exception.message"] == "the policy failed for ride-1: LookupError: no rule"
    assert said["exception.stacktrace"].endswith("LookupError: no rule\n")


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_error_that_cannot_say_what_it_is_is_a_dead_letter_all_the_same() -> None:
    said = context(dead_letter("d", record(), raised(Speechless()), "g")[-1])
    assert said["exception.class.name"].endswith(".Speechless")
    assert said["exception.message"] == "(no message: RuntimeError)"


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


def errors_of(failed: Sequence[bool]) -> list[Exception | None]:
    return [ValueError("no") if it_did else None for it_did in failed]


def test_the_limit_is_a_run_of_dead_letters() -> None:
    limit = DeadLetterLimit("rides", run=3, share=1.0)
    limit.observe(errors_of([True, True, False, True, True]))
    with pytest.raises(
        FatalError,
        match=r"^rides: 3 in a row failed \(DEAD_LETTER_RUN\), the last with ValueError: no\. .* nothing of this batch",
    ):
        limit.observe(errors_of([True]))


def test_one_good_record_ends_a_run() -> None:
    limit = DeadLetterLimit("rides", run=3, share=1.0)
    for _ in range(100):
        limit.observe(errors_of([True, True, False]))
        limit.commit()


def test_records_that_come_again_after_a_rollback_count_once() -> None:
    limit = DeadLetterLimit("rides", run=100, share=1.0)
    for _ in range(10):
        limit.observe(errors_of([True] * 60))
        limit.rollback()
    limit.observe(errors_of([True] * 60))
    limit.commit()
    with pytest.raises(FatalError, match="100 in a row"):
        limit.observe(errors_of([True] * 60))


def test_the_limit_is_a_share_of_the_last_records() -> None:
    limit = DeadLetterLimit("rides", run=1000, share=0.5, window=10)
    for batch in ([True, False] * 5, [False] * 10, [True, False] * 5):
        limit.observe(errors_of(batch))
        limit.commit()
    with pytest.raises(FatalError, match=r"\d+ of the last \d+ failed \(DEAD_LETTER_SHARE\)"):
        limit.observe(errors_of([True, True, False]))


def test_the_share_is_not_looked_at_before_there_are_enough_records() -> None:
    DeadLetterLimit("rides", run=1000, share=0.5, window=10).observe(errors_of([True] * 9))


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=30), max_size=30))
def test_the_share_is_over_whole_batches_that_reach_back_a_window(batches: list[list[bool]]) -> None:
    limit = DeadLetterLimit("rides", run=10_000, share=0.5, window=20)
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
            limit.observe(errors_of(batch))
        else:
            with pytest.raises(FatalError):
                limit.observe(errors_of(batch))
        limit.commit()


def test_a_new_worker_goes_on_when_half_of_its_first_records_are_poison() -> None:
    limit = DeadLetterLimit("rides", run=1000, share=0.5)
    for dead in ([True, False] * 250, [False] * 9500, [True] * 999, [False]):
        limit.observe(errors_of(dead))
        limit.commit()


def test_a_new_worker_stops_when_more_than_half_of_its_first_two_thousand_records_are_poison() -> None:
    limit = DeadLetterLimit("rides", run=1000, share=0.5)
    for _ in range(3):
        limit.observe(errors_of([True, True, False, True] * 125))
        limit.commit()
    with pytest.raises(FatalError, match=r"1500 of the last 2000 failed \(DEAD_LETTER_SHARE\)"):
        limit.observe(errors_of([True, True, False, True] * 125))


def dead_letters(run: int) -> DeadLetters:
    return DeadLetters("dead_letters", "tip", partial(DeadLetterLimit, run=run, share=1.0))


def test_dead_letters_are_added_in_the_order_of_their_records_and_counted() -> None:
    records = [record(offset=offset) for offset in range(4)]
    work = Work()
    letters = dead_letters(run=10)
    letters.add(work, records, {3: ValueError("d"), 1: ValueError("b")}, {"rides": range(4)})
    letters.add(work, records, {}, {"rides": range(4)})
    assert [context(headers)["offset"] for *_, headers in work.records] == ["1", "3"]
    assert work.counts == Counter(dead_letters=2)


def test_each_kind_of_records_has_its_own_limit() -> None:
    """A policy that fails for every event is no better for the predictions that wait in vain."""
    letters = dead_letters(run=50)
    places = {"rides": range(0, 40, 2), "predictions": range(1, 40, 2)}
    errors = {place: ValueError("no") for place in places["rides"]}
    for _ in range(2):
        letters.add(Work(), [record()] * 40, errors, places)
        letters.commit()
    with pytest.raises(FatalError, match="50 in a row"):
        letters.add(Work(), [record()] * 40, errors, places)


def test_what_was_counted_of_a_kind_is_undone_by_a_rollback() -> None:
    letters = dead_letters(run=50)
    for _ in range(10):
        letters.observe("deadlines", errors_of([True] * 30))
        letters.rollback()
    letters.observe("deadlines", errors_of([True] * 30))
    letters.commit()
    with pytest.raises(FatalError, match="50 in a row"):
        letters.observe("deadlines", errors_of([True] * 30))
