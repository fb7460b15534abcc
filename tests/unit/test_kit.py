"""The test kit, as its users use it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from confluent_kafka import KafkaError

from braidstream.deciding.policy import Known, Verdict
from braidstream.errors import FatalError
from braidstream.testing.broker import FakeBroker
from braidstream.testing.kit import PolicyKit, ScorerKit
from braidstream.testing.worker import START
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.unit.events import ride


def test_a_model_in_three_lines() -> None:
    kit = ScorerKit(RIDES, predict=lambda rides: [3 * (ride.trip_distance or 0) for ride in rides], model="duration")
    [prediction] = kit.send(ride("ride-1", trip_distance=2.5))
    assert (prediction.subject_id, prediction.model, prediction.value) == ("ride-1", "duration", 7.5)
    assert prediction.predicted_at == START


def test_what_a_model_cannot_read() -> None:
    kit = ScorerKit(RIDES, predict=lambda rides: [1.0 for _ in rides], model="duration")
    assert kit.send_raw(b"ride-1", b"\x00\x01") == []
    [letter] = kit.dead_letters
    assert (letter.key, letter.value, letter.stage) == (b"ride-1", b"\x00\x01", "VALUE_CONVERTER")


def long_is_reviewed(known: Known[RideStarted]) -> Verdict | None:
    """Waits for the duration only."""
    duration = known.predictions.get("duration")
    if duration is None:
        return Verdict("review", ("no duration",)) if known.final else None
    return Verdict("review" if duration.value > 60 else "accept")


def test_a_policy_in_four_lines() -> None:
    kit = PolicyKit(RIDES, long_is_reviewed, expected=("duration", "tip"), deadline=30)
    assert kit.event(ride("ride-1")) == []
    [decision] = kit.predict("ride-1", "duration", 90)
    assert (decision.action, decision.missing) == ("review", ["tip"])


def test_the_clock_moves_only_when_it_is_told_to() -> None:
    kit = PolicyKit(RIDES, long_is_reviewed, expected=("duration",), deadline=30)
    kit.event(ride("ride-1"))
    assert kit.advance(seconds=29) == []
    [decision] = kit.advance(seconds=1)
    assert decision.reasons == ["no duration"]
    assert decision.decided_at == START + timedelta(seconds=30) == kit.now


def test_a_restart_in_one_call() -> None:
    kit = PolicyKit(RIDES, long_is_reviewed, expected=("duration",), deadline=30)
    kit.event(ride("ride-1"))
    kit.restart()
    assert len(kit.predict("ride-1", "duration", 1)) == 1
    kit.restart(crash=True)
    assert kit.event(ride("ride-1")) == []
    assert len(kit.decisions) == 1


def test_nothing_happens_while_it_is_stopped() -> None:
    kit = PolicyKit(RIDES, long_is_reviewed, expected=("duration",), deadline=30)
    kit.event(ride("ride-1"))
    kit.stop()
    kit.sleep(60)
    assert kit.decisions == []
    kit.start()
    assert len(kit.decisions) == 1


def test_settings_come_from_the_call_and_never_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPIC_PREFIX", "production-")
    monkeypatch.setenv("EXPECTED_MODELS", "tip")
    monkeypatch.setenv("DEAD_LETTER_RUN", "nonsense")
    kit = PolicyKit(RIDES, long_is_reviewed, expected=("duration",), dead_letter_run=2)
    kit.event(ride("ride-1"))
    assert len(kit.predict("ride-1", "duration", 1)) == 1
    kit.send_raw(RIDES.subjects, b"x", b"x")
    with pytest.raises(FatalError, match="ride_started: 2 in a row failed"):
        kit.send_raw(RIDES.subjects, b"x", b"x")


def test_kits_on_one_broker_share_the_work() -> None:
    broker = FakeBroker(partitions=2)
    kits = [ScorerKit(RIDES, predict=lambda rides: [1.0] * len(rides), model="tip", broker=broker) for _ in range(2)]
    for kit in [*kits, *kits]:
        kit.run()
    assert [len(kit.inbox.owned) for kit in kits] == [1, 1]


def test_what_is_planned_to_fail_fails_in_order_and_once() -> None:
    kit = ScorerKit(RIDES, predict=lambda rides: [1.0] * len(rides), model="tip")
    calls: list[str] = []
    kit.broker.run_before("commit_transaction", lambda: calls.append("second"), skip=1)
    kit.broker.fail_next("commit_transaction", KafkaError(KafkaError._TIMED_OUT, retriable=True))
    for number in range(4):
        kit.send(ride(f"ride-{number}"))
    assert calls == ["second"]
    assert len(kit.predictions) == 4
