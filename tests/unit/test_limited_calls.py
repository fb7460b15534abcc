"""Calls that never return are given up, and what they were part of is done again."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError

from braidstream.errors import RetriableError
from braidstream.streaming import publisher
from braidstream.streaming.limited_calls import LimitedCalls
from braidstream.testing.kit import ScorerKit
from rides.pipeline import RIDES
from tests.unit.events import ride
from tests.unit.test_worker import everything_is_committed


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What a call waits for that does not return before the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_a_call_is_made_and_what_it_raises_is_raised() -> None:
    made: list[str] = []
    calls = LimitedCalls()
    calls.make(lambda: made.append("first"), 10)

    def fail() -> None:
        raise RetriableError("second")

    with pytest.raises(RetriableError, match="second"):
        calls.make(fail, 10)
    calls.make(lambda: made.append("third"), 10)
    assert made == ["first", "third"]


def test_a_call_that_does_not_return_is_given_up_and_the_next_one_is_made(never: threading.Event) -> None:
    calls = LimitedCalls()

    def wait() -> None:
        never.wait()

    with pytest.raises(TimeoutError, match=r"no return within 0\.01 s"):
        calls.make(wait, 0.01)
    made: list[str] = []
    calls.make(lambda: made.append("next"), 10)
    assert made == ["next"]


def test_the_thread_ends_with_its_owner() -> None:
    threads: list[threading.Thread] = []
    calls = LimitedCalls()
    calls.make(lambda: threads.append(threading.current_thread()), 10)
    del calls
    threads[0].join(10)
    assert not threads[0].is_alive()


def test_offsets_that_the_client_never_answers_for_are_sent_again_by_a_new_producer(
    never: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "OFFSETS_TIMEOUT", 0.05)
    kit = ScorerKit(RIDES, predict=lambda rides: [1.0] * len(rides), model="tip")
    kit.broker.run_before("send_offsets_to_transaction", never.wait)
    kit.send(ride("ride-1"), ride("ride-2"))
    assert sorted(made.subject_id for made in kit.predictions) == ["ride-1", "ride-2"]
    assert everything_is_committed(kit)


@pytest.mark.parametrize("call", ["commit_transaction", "abort_transaction"])
def test_a_transaction_that_never_ends_is_done_again_by_a_new_producer(
    call: str, never: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "OFFSETS_TIMEOUT", 0.05)
    kit = ScorerKit(RIDES, predict=lambda rides: [1.0] * len(rides), model="tip")
    if call == "abort_transaction":
        kit.broker.fail_next("deliver", KafkaError(KafkaError._MSG_TIMED_OUT))
    kit.broker.run_before(call, never.wait)
    kit.send(ride("ride-1"), ride("ride-2"))
    assert sorted(made.subject_id for made in kit.predictions) == ["ride-1", "ride-2"]
    assert everything_is_committed(kit)
