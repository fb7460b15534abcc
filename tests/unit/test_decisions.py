"""The decision service on the fake broker: restarts, backlogs, deadlines, limits, and policies that fail."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from braidstream.avro import Codec, LocalSchemas
from braidstream.deciding.policy import Known, Verdict
from braidstream.errors import FatalError, PoisonRecord
from braidstream.streaming import decisions
from braidstream.testing.broker import FakeBroker
from braidstream.testing.kit import PolicyKit
from rides.pipeline import RIDES
from schemas.decision import Evidence
from schemas.prediction import Prediction
from schemas.ride_started import RideStarted
from tests.unit.events import prediction, ride

EXPECTED = ("duration", "tip")
PREDICTIONS = Codec(RIDES.predictions.event_type, LocalSchemas(RIDES.predictions.event_type), "predictions")


def patient(known: Known[RideStarted]) -> Verdict | None:
    """Waits for everything; rides of which something is missing are reviewed."""
    if known.event.pickup_zone == 265:
        raise LookupError("no rule outside the city")
    if any(evidence.value < 0 for evidence in known.predictions.values()):
        raise ValueError("below zero")
    if not known.final:
        return None
    return Verdict("review", known.missing) if known.missing else Verdict("accept")


@pytest.fixture
def kit() -> PolicyKit[RideStarted]:
    return PolicyKit(RIDES, patient, expected=EXPECTED, deadline=30)


def write(kit: PolicyKit[RideStarted], *events: RideStarted | Prediction) -> None:
    """Write to the topics while no worker looks."""
    for event in events:
        if isinstance(event, RideStarted):
            kit.broker.send("ride_started", key=event.ride_id.encode(), value=kit.encode(event))
        else:
            kit.broker.send("predictions", key=event.subject_id.encode(), value=PREDICTIONS.encode(event))


def held(kit: PolicyKit[RideStarted]) -> tuple[int, ...]:
    """How many subjects are open, waiting, and held in all."""
    gauges = kit.processor.gauges()
    return tuple(gauges[name] for name in ("open", "waiting", "subjects_held"))


def test_a_decision_says_what_it_rests_on(kit: PolicyKit[RideStarted]) -> None:
    opened_at = kit.now
    kit.event(ride("ride-1"))
    kit.predict("ride-1", "tip", 2.5, version="7")
    kit.advance(seconds=1.5)
    [decision] = kit.predict("ride-1", "duration", 12)
    assert decision.model_dump() == {
        "subject_id": "ride-1",
        "revision": 0,
        "action": "accept",
        "reasons": [],
        "complete": True,
        "missing": [],
        "evidence": [
            {"model": "tip", "model_version": "7", "value": 2.5},
            {"model": "duration", "model_version": "test", "value": 12.0},
        ],
        "opened_at": opened_at,
        "decided_at": opened_at + timedelta(seconds=1.5),
    }


def test_decision_and_changelog_stay_on_the_partition_of_the_subject(kit: PolicyKit[RideStarted]) -> None:
    at = kit.broker.send("ride_started", key=b"ride-1", value=kit.encode(ride("ride-1")))
    kit.run()
    kit.advance(seconds=30)
    for topic in ("decisions", "decision_state"):
        assert {record.partition() for record in kit.broker.records(topic)} == {at.number}
        assert {record.key() for record in kit.broker.records(topic)} == {b"ride-1"}


def test_an_idle_partition_closes_on_time(kit: PolicyKit[RideStarted]) -> None:
    kit.event(ride("ride-1"))
    assert kit.advance(seconds=29.9) == []
    [decision] = kit.advance(seconds=0.1)
    assert (decision.complete, decision.missing, decision.reasons) == (False, ["duration", "tip"], ["duration", "tip"])


def test_what_the_clock_decides_is_fenced_too(kit: PolicyKit[RideStarted]) -> None:
    """Without a record in hand too, a worker that was given up must not decide for a partition of another one."""
    kit.event(ride("ride-1"))
    others: list[PolicyKit[RideStarted]] = []

    def replace() -> None:
        kit.broker.expire_member(kit.consumer)
        others.append(PolicyKit(RIDES, patient, expected=EXPECTED, deadline=30, broker=kit.broker))

    kit.broker.run_before("begin_transaction", replace)
    kit.advance(seconds=30)
    for other in others:
        other.sleep(30)
    turns(kit, *others)
    assert [decision.revision for decision in kit.decisions] == [0]


@pytest.mark.parametrize("crash", [False, True])
def test_a_new_worker_knows_what_the_old_one_knew(kit: PolicyKit[RideStarted], crash: bool) -> None:
    opened_at = kit.now
    kit.predict("waiting", "tip", 1)
    kit.event(ride("open"))
    kit.predict("open", "tip", 1)
    kit.event(ride("closed"))
    kit.predict("closed", "tip", 1)
    kit.predict("closed", "duration", 1)
    kit.advance(seconds=10)
    kit.restart(crash=crash)
    assert held(kit) == (1, 1, 3)
    assert kit.predict("closed", "tip", 1) == []
    assert kit.event(ride("closed")) == []
    [was_open] = kit.predict("open", "duration", 1)
    assert (was_open.complete, was_open.opened_at) == (True, opened_at)
    kit.event(ride("waiting"))
    [was_waiting] = kit.predict("waiting", "duration", 1)
    assert was_waiting.evidence[0] == Evidence(model="tip", model_version="test", value=1)


def test_a_deadline_outlasts_a_restart(kit: PolicyKit[RideStarted]) -> None:
    kit.event(ride("ride-1"))
    kit.advance(seconds=20)
    kit.restart()
    assert kit.advance(seconds=9) == []
    assert len(kit.advance(seconds=1)) == 1


def test_a_forgotten_subject_is_not_restored(kit: PolicyKit[RideStarted]) -> None:
    kit.event(ride("ride-1"))
    kit.advance(seconds=30)
    kit.advance(seconds=3600)
    kit.restart()
    assert kit.processor.gauges()["subjects_held"] == 0
    assert kit.broker.records("decision_state")[-1].value() is None


def test_what_was_answered_in_time_counts_after_downtime(kit: PolicyKit[RideStarted]) -> None:
    kit.event(ride("ride-1"))
    kit.stop(crash=True)
    write(kit, prediction("ride-1", "duration"), prediction("ride-1", "tip"))
    kit.sleep(3600)
    kit.start()
    [decision] = kit.decisions
    assert decision.complete


def test_what_was_answered_in_time_counts_on_a_backlog() -> None:
    """Records come one by one, and the deadline is over long before the answers are read."""
    kit = PolicyKit(RIDES, patient, expected=EXPECTED, deadline=30, batch_size=1, broker=FakeBroker(partitions=1))
    kit.event(ride("ride-1"))
    kit.stop()
    write(kit, *(prediction(f"other-{number}") for number in range(20)))
    write(kit, prediction("ride-1", "duration"), prediction("ride-1", "tip"))
    kit.sleep(31)
    kit.start()
    assert [decision.complete for decision in kit.decisions] == [True]


def test_what_is_answered_after_the_end_was_asked_for_is_late(kit: PolicyKit[RideStarted]) -> None:
    kit.event(ride("ride-1"))
    kit.predict("ride-1", "tip", 1)
    [partial] = kit.advance(seconds=30)
    [complete] = kit.predict("ride-1", "duration", 1)
    assert (partial.revision, partial.complete) == (0, False)
    assert (complete.revision, complete.complete) == (1, True)


def test_a_deadline_waits_while_the_broker_does_not_tell_the_end(kit: PolicyKit[RideStarted]) -> None:
    kit.event(ride("ride-1"))
    kit.broker.ends.delay = 3
    kit.broker.fail_next("ends", KafkaError(KafkaError._TRANSPORT))
    assert len(kit.advance(seconds=30)) == 1


@pytest.mark.parametrize("done", [False, True])
def test_a_commit_whose_outcome_is_unknown_costs_no_state(kit: PolicyKit[RideStarted], done: bool) -> None:
    timed_out = KafkaError(KafkaError._TIMED_OUT, retriable=True)
    kit.broker.fail_next("commit_transaction", timed_out, done=done)
    kit.event(ride("ride-1"))
    kit.broker.fail_next("commit_transaction", timed_out, done=done)
    kit.predict("ride-1", "tip", 1)
    kit.broker.fail_next("commit_transaction", timed_out, done=done)
    kit.predict("ride-1", "duration", 1)
    assert [(decision.revision, decision.complete) for decision in kit.decisions] == [(0, True)]


def test_what_was_aborted_is_decided_anew(kit: PolicyKit[RideStarted]) -> None:
    kit.event(ride("ride-1"))
    kit.predict("ride-1", "tip", 1)
    before = kit.now
    kit.broker.fail_next("commit_transaction", KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True))
    [decision] = kit.predict("ride-1", "duration", 1)
    assert before < decision.decided_at == kit.now


def test_at_the_limit_no_new_subjects_are_read_and_predictions_drain() -> None:
    kit = PolicyKit(RIDES, patient, expected=["tip"], max_open=2, batch_size=1, broker=FakeBroker(partitions=1))
    assert kit.event(*(ride(f"ride-{number}") for number in range(6))) == []
    assert kit.processor.gauges()["open"] == 2
    for number in range(6):
        [decision] = kit.predict(f"ride-{number}", "tip", 1)
        assert decision.subject_id == f"ride-{number}"
    assert kit.processor.gauges()["open"] == 0


def test_at_the_limit_deadlines_still_fire() -> None:
    kit = PolicyKit(RIDES, patient, expected=["tip"], deadline=30, max_open=1, batch_size=1)
    kit.event(*(ride(f"ride-{number}") for number in range(3)))
    decided = [decision for _ in range(3) for decision in kit.advance(seconds=30)]
    assert {decision.subject_id for decision in decided} == {"ride-0", "ride-1", "ride-2"}


def test_a_policy_that_fails_at_the_event_gives_the_event_as_a_dead_letter(kit: PolicyKit[RideStarted]) -> None:
    kit.predict("ride-1", "tip", 1)
    assert kit.event(ride("ride-1", pickup_zone=265)) == []
    [letter] = kit.dead_letters
    assert (letter.key, letter.stage) == (b"ride-1", "TRANSFORMATION")
    assert letter.reason == "the policy failed for ride-1: LookupError: no rule outside the city"
    assert held(kit) == (0, 1, 1)


def test_a_policy_that_fails_at_a_prediction_gives_the_prediction_as_a_dead_letter(
    kit: PolicyKit[RideStarted],
) -> None:
    kit.event(ride("ride-1"))
    kit.predict("ride-1", "tip", -1)
    [letter] = kit.dead_letters
    assert PREDICTIONS.decode(letter.value).value == -1
    kit.predict("ride-1", "tip", 1)
    assert len(kit.predict("ride-1", "duration", 1)) == 1


def test_a_policy_that_fails_at_the_deadline_gives_the_event_as_a_dead_letter() -> None:
    def fails_at_the_end(known: Known[RideStarted]) -> Verdict | None:
        if known.final and known.subject_id == "bad":
            raise LookupError("no rule")
        return Verdict("done") if known.final else None

    kit = PolicyKit(RIDES, fails_at_the_end, expected=EXPECTED, deadline=30)
    kit.event(ride("bad"), ride("good"))
    assert [decision.subject_id for decision in kit.advance(seconds=30)] == ["good"]
    [letter] = kit.dead_letters
    assert (letter.key, letter.value) == (b"bad", kit.encode(ride("bad")))
    kit.restart()
    assert kit.advance(seconds=30) == []
    assert len(kit.dead_letters) == 1


def test_what_cannot_be_read_is_a_dead_letter_of_its_topic(kit: PolicyKit[RideStarted]) -> None:
    kit.send_raw(RIDES.subjects, b"ride-1", b"no ride")
    kit.send_raw(RIDES.predictions, b"ride-1", b"no prediction")
    kit.send_raw(RIDES.predictions, b"another", PREDICTIONS.encode(prediction("ride-1")))
    assert [letter.stage for letter in kit.dead_letters] == ["VALUE_CONVERTER", "VALUE_CONVERTER", "KEY_CONVERTER"]
    assert kit.processor.gauges()["subjects_held"] == 0


def test_an_orphan_makes_no_decision(kit: PolicyKit[RideStarted]) -> None:
    kit.predict("nobody", "tip", 1)
    assert kit.advance(seconds=30) == []
    assert kit.processor.gauges()["subjects_held"] == 0


def test_nothing_is_read_before_the_state_is_restored(kit: PolicyKit[RideStarted]) -> None:
    kit.event(ride("ride-1"))
    kit.stop()
    write(kit, prediction("ride-1", "duration"), prediction("ride-1", "tip"))
    blocker = kit.broker.producer("blocker")
    blocker.init_transactions(1)
    blocker.begin_transaction()
    for number in range(4):
        blocker.produce("decision_state", value=b"", key=b"x", partition=number, on_delivery=None, headers=[])
    before = kit.now
    kit.start()
    assert str(kit.processor.waiting_for()).startswith("restoring partitions [0, 1, 2, 3]")
    assert kit.decisions == []
    blocker.abort_transaction()
    kit.run()
    assert kit.processor.waiting_for() is None
    assert [decision.complete for decision in kit.decisions] == [True]
    assert kit.now == before, "it had to go back"


def test_partitions_move_between_workers_with_their_state() -> None:
    first = PolicyKit(RIDES, patient, expected=EXPECTED, deadline=30)
    names = [f"ride-{number}" for number in range(20)]
    first.event(*map(ride, names))
    for name in names:
        first.predict(name, "tip", 1)
    second = PolicyKit(RIDES, patient, expected=EXPECTED, deadline=30, broker=first.broker)
    turns(first, second)
    opens = [worker.processor.gauges()["open"] for worker in (first, second)]
    assert sum(opens) == 20
    assert all(opens)
    write(first, *(prediction(name, "duration") for name in names))
    turns(first, second)
    assert sorted(decision.subject_id for decision in first.decisions) == sorted(names)
    assert all(decision.complete and decision.revision == 0 for decision in first.decisions)


def turns(*kits: PolicyKit[RideStarted]) -> None:
    for _ in range(5):
        for kit in kits:
            kit.run()


def test_each_partition_number_is_whole_with_its_owner() -> None:
    first = PolicyKit(RIDES, patient, expected=EXPECTED)
    second = PolicyKit(RIDES, patient, expected=EXPECTED, broker=first.broker)
    turns(first, second)
    for kit in (first, second):
        assert {(topic, number) for topic, number in kit.inbox.owned} == {
            (topic, number) for topic in ("ride_started", "predictions") for _, number in kit.inbox.owned
        }
        assert len(kit.inbox.owned) == 4


# What the settings bound, and settings that change


def test_at_the_limit_of_what_is_remembered_the_oldest_is_forgotten_for_good() -> None:
    kit = PolicyKit(RIDES, patient, expected=["tip"], max_remembered=3, broker=FakeBroker(partitions=2))
    names = [f"ride-{number}" for number in range(9)]
    with capture_logs() as logs:
        for name in names:
            kit.event(ride(name))
            kit.predict(name, "tip", 1)
            kit.advance(seconds=1)
    assert held(kit) == (0, 0, 3)
    kit.restart()
    assert held(kit) == (0, 0, 3)
    last = {record.key(): record.value() is None for record in kit.broker.records("decision_state")}
    assert sum(last.values()) == 6, "six have a tombstone"
    [warning] = [line for line in logs if "forgotten before REMEMBER is over" in line["event"]]
    assert (warning["log_level"], warning["max_remembered"]) == ("warning", 3)
    repeated = [name for name in names if last[name.encode()]]
    for name in repeated:
        kit.event(ride(name))
        [again] = kit.predict(name, "tip", 1)
        assert again.revision == 0


def test_what_is_forgotten_early_is_told_once_a_minute_and_counted() -> None:
    with capture_logs() as logs:
        kit = PolicyKit(RIDES, patient, expected=["tip"], max_remembered=1, broker=FakeBroker(partitions=1))
        for second in range(130):
            kit.event(ride(f"ride-{second}"))
            kit.predict(f"ride-{second}", "tip", 1)
            kit.advance(seconds=1)
    warnings = [line for line in logs if "forgotten before REMEMBER is over" in line["event"]]
    counted = sum(line.get("forgotten_early", 0) for line in logs if line["event"] == "progress")
    assert len(warnings) == 3
    assert 110 < counted <= 129


def test_what_a_long_downtime_leaves_is_decided_in_more_than_one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "_ENDED_AT_ONCE", 10)
    kit = PolicyKit(RIDES, patient, expected=EXPECTED, deadline=30, broker=FakeBroker(partitions=1))
    kit.event(*(ride(f"ride-{number}") for number in range(35)))
    kit.stop(crash=True)
    kit.sleep(3600)
    ended: list[int] = []
    for _ in range(6):
        kit.broker.run_before("commit_transaction", lambda: ended.append(held(kit)[0]))
    kit.start()
    assert ended[:4] == [25, 15, 5, 0]
    assert len({made.subject_id for made in kit.decisions}) == len(kit.decisions) == 35


def successor(kit: PolicyKit[RideStarted], **settings: Any) -> PolicyKit[RideStarted]:
    """A service with other settings in place of this one, as late as this one was."""
    kit.stop()
    known: dict[str, Any] = {"expected": EXPECTED, "deadline": 30, "remember": 3600}
    other = PolicyKit(RIDES, patient, broker=kit.broker, **(known | settings))
    other.sleep((kit.now - other.now).total_seconds())
    return other


def test_what_is_open_waits_for_the_models_that_were_expected_when_it_was_opened(kit: PolicyKit[RideStarted]) -> None:
    kit.event(ride("before"))
    kit.predict("before", "tip", 1)
    other = successor(kit, expected=["tip", "weather"])
    other.event(ride("after"))
    assert other.predict("before", "weather", 1) == []
    [before] = other.predict("before", "duration", 1)
    assert (before.complete, {evidence.model for evidence in before.evidence}) == (True, {"duration", "tip", "weather"})
    other.predict("after", "tip", 1)
    [after] = other.predict("after", "weather", 1)
    assert after.complete
    last = successor(other, expected=["duration"])
    assert last.predict("after", "duration", 1) == []
    assert last.event(ride("before")) == []


def test_a_deadline_is_that_of_the_opening_also_with_another_setting(kit: PolicyKit[RideStarted]) -> None:
    kit.event(ride("before"))
    other = successor(kit, deadline=3600)
    other.event(ride("after"))
    assert [made.subject_id for made in other.advance(seconds=31)] == ["before"]
    assert [made.subject_id for made in other.advance(seconds=3600)] == ["after"]


def test_remembering_for_less_long_holds_for_what_was_closed_before(kit: PolicyKit[RideStarted]) -> None:
    kit.event(ride("ride-1"))
    kit.advance(seconds=31)
    other = successor(kit, remember=120)
    assert other.event(ride("ride-1")) == []
    other.advance(seconds=80)
    assert held(other) == (0, 0, 1)
    other.advance(seconds=10)
    assert held(other) == (0, 0, 0)
    assert other.broker.records("decision_state")[-1].value() is None


def test_remembering_for_longer_holds_for_what_is_closed_from_then_on(kit: PolicyKit[RideStarted]) -> None:
    kit.event(ride("before"))
    kit.advance(seconds=31)
    other = successor(kit, remember=7200)
    other.event(ride("after"))
    other.advance(seconds=31)
    other.advance(seconds=3600)
    assert held(other) == (0, 0, 1)


# A policy that is broken


def broken(known: Known[RideStarted]) -> Verdict | None:
    """Fails whenever it is asked."""
    raise ZeroDivisionError("division by zero")


def broken_at_the_end(known: Known[RideStarted]) -> Verdict | None:
    """Waits well, and fails when it is to decide."""
    return broken(known) if known.final else None


def committed(kit: PolicyKit[RideStarted]) -> int:
    return sum(kit.broker.committed("kit").values())


def test_a_policy_that_fails_for_every_event_stops_although_predictions_wait_well() -> None:
    kit = PolicyKit(RIDES, broken, expected=EXPECTED, dead_letter_run=100, broker=FakeBroker(partitions=1))
    names = [f"ride-{number}" for number in range(100)]
    write(kit, *map(ride, names))
    write(kit, *(prediction(name, "tip") for name in names))
    with pytest.raises(
        FatalError,
        match=r"^ride_started: 100 in a row failed \(DEAD_LETTER_RUN\), the last with PolicyError: .* ZeroDiv",
    ):
        kit.run()
    assert (committed(kit), kit.dead_letters) == (0, [])


def test_a_policy_that_fails_for_every_event_of_small_batches_stops_at_the_limit() -> None:
    kit = PolicyKit(
        RIDES, broken, expected=EXPECTED, dead_letter_run=25, batch_size=10, broker=FakeBroker(partitions=1)
    )
    for number in range(50):
        write(kit, ride(f"ride-{number}"), prediction(f"ride-{number}", "tip"))
    with pytest.raises(FatalError, match=r"^ride_started: 25 in a row failed \(DEAD_LETTER_RUN\)"):
        kit.run()
    assert len(kit.dead_letters) < 25


@pytest.mark.parametrize("together", [True, False], ids=["all at once", "one after the other"])
def test_a_policy_that_fails_at_every_deadline_stops_at_the_limit(together: bool) -> None:
    """Although every event was opened well, and is a dead letter only then."""
    kit = PolicyKit(RIDES, broken_at_the_end, expected=EXPECTED, dead_letter_run=25, broker=FakeBroker(partitions=1))

    def one_after_the_other() -> None:
        for number in range(60):
            kit.event(ride(f"ride-{number}"))
            kit.advance(seconds=0 if together else 31)
        kit.advance(seconds=31)

    with pytest.raises(FatalError, match=r"^deadlines: 25 in a row failed \(DEAD_LETTER_RUN\)"):
        one_after_the_other()
    assert len(kit.dead_letters) < 25


def test_a_policy_that_fails_at_some_deadlines_does_not_stop_the_worker() -> None:
    def fails_for_some(known: Known[RideStarted]) -> Verdict | None:
        if known.final and known.subject_id.endswith("7"):
            return broken(known)
        return Verdict("done") if known.final else None

    kit = PolicyKit(RIDES, fails_for_some, expected=EXPECTED, dead_letter_run=5, broker=FakeBroker(partitions=1))
    kit.event(*(ride(f"ride-{number}") for number in range(100)))
    with capture_logs() as lines:
        assert len(kit.advance(seconds=31)) == 90
    assert len(kit.dead_letters) == 10
    assert [line["count"] for line in lines if line["event"] == "dead letters"] == [10]


def test_what_a_downtime_left_is_ended_in_several_transactions_also_when_the_policy_fails_for_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decisions, "_ENDED_AT_ONCE", 20)

    def fails_for_some(known: Known[RideStarted]) -> Verdict | None:
        if known.final and known.subject_id.endswith("7"):
            return broken(known)
        return Verdict("done") if known.final else None

    kit = PolicyKit(RIDES, fails_for_some, expected=EXPECTED, deadline=30, broker=FakeBroker(partitions=1))
    kit.event(*(ride(f"ride-{number}") for number in range(100)))
    kit.sleep(31)
    ended = []
    before = len(kit.decisions) + len(kit.dead_letters)
    while before < 100:
        kit.worker.step()
        now = len(kit.decisions) + len(kit.dead_letters)
        ended += [now - before] if now != before else []
        before = now
    assert ended == [20] * 5


def test_what_the_policy_cannot_read_of_an_event_is_a_dead_letter() -> None:
    def unreadable(known: Known[RideStarted]) -> Verdict | None:
        raise PoisonRecord("VALUE_CONVERTER", "schema id 7 is not known")

    kit = PolicyKit(RIDES, unreadable, expected=EXPECTED)
    kit.event(ride())
    assert [(letter.stage, letter.key) for letter in kit.dead_letters] == [("TRANSFORMATION", b"ride-1")]


def test_an_exception_that_cannot_say_what_it_is_makes_a_dead_letter_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def mute(known: Known[RideStarted]) -> Verdict | None:
        raise Mute

    kit = PolicyKit(RIDES, mute, expected=EXPECTED)
    kit.event(ride())
    [letter] = kit.dead_letters
    assert letter.reason == "the policy failed for ride-1: Mute: (no message: RuntimeError)"
