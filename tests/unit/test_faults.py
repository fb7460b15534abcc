"""What goes wrong in the middle of something: nothing is lost, nothing is done twice, nothing ends the worker."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message
from structlog.testing import capture_logs

from braidstream.avro import AvroSchema, Codec, EventType, LocalSchemas, read
from braidstream.deciding.join import Join, Rules, State
from braidstream.deciding.policy import Known, Verdict
from braidstream.errors import FatalError, PoisonRecord, RetriableError, SettingsError, UnavailableError
from braidstream.processors import scoring_processor
from braidstream.settings import WorkerSettings
from braidstream.streaming.changelog import Restore
from braidstream.streaming.dead_letters import DeadLetterLimit, raw_headers
from braidstream.streaming.publisher import OutRecord
from braidstream.streaming.state_codecs import StateCodec
from braidstream.testing.broker import FakeBroker
from braidstream.testing.kit import PolicyKit, ScorerKit
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.unit.events import prediction, ride
from tests.unit.test_topics import COMPACTED, Admin

ABORTABLE = KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True)
LOCAL = LocalSchemas(*(topic.event_type for topic in RIDES.topics))
RIDE = Codec(RIDES.subjects.event_type, LOCAL, "ride_started")
PREDICTION = Codec(RIDES.predictions.event_type, LOCAL, "predictions")


def patient(known: Known[RideStarted]) -> Verdict | None:
    """Waits for every model, and has the rides of which one is missing reviewed."""
    if not known.final:
        return None
    return Verdict("review" if known.missing else "accept")


def policy_kit(policy: Any = patient, **settings: Any) -> PolicyKit[RideStarted]:
    return PolicyKit(RIDES, policy, expected=["duration"], deadline=30, broker=FakeBroker(partitions=1), **settings)


def scorer_kit(**settings: Any) -> ScorerKit[RideStarted]:
    return ScorerKit(RIDES, predict=lambda rides: [1.0] * len(rides), model="tip", **settings)


# Restoring


class OnceUnreachable:
    """A registry that knows one schema by id 1, and does not answer when it is first asked for it."""

    def __init__(self, schema: AvroSchema) -> None:
        self._schema = schema
        self.asked = 0

    def id_of(self, event_type: EventType[Any], subject: str) -> int:
        return 2

    def schema(self, schema_id: int) -> AvroSchema | None:
        self.asked += 1
        if self.asked == 1:
            raise RetriableError("the registry does not answer")
        return self._schema if schema_id == 1 else None


def test_a_registry_that_fails_in_the_middle_of_a_restore_costs_no_state() -> None:
    """The consumer's position is behind the whole batch, also when only its first records were taken."""
    state = State(b"event", ("duration",), (), 0, 30_000, None)
    broker, schemas = FakeBroker(), OnceUnreachable(RIDES.decision_state.event_type.latest)
    codec = StateCodec(RIDES.decision_state.event_type, schemas, "decision_state")
    for number in range(6):
        value = codec.encode(str(number), state)
        written_before = number >= 2
        broker.send(
            "decision_state",
            key=str(number).encode(),
            value=value[:4] + b"\x01" + value[5:] if written_before else value,
            partition=0,
        )
    restored: dict[str, State | None] = {}
    restore = Restore(
        "decision_state",
        broker.reader,
        broker.ends,
        codec.decode,
        lambda _, subject, state: restored.update({subject: state}),
    )
    restore.start([0])
    done: set[int] = set()
    failures = 0
    for _ in range(6):
        try:
            done |= restore.step()
        except RetriableError:
            failures += 1
    assert (failures, done) == (1, {0})
    assert restored == {str(number): state for number in range(6)}


# Going back


def test_a_decision_that_was_written_is_revised_and_not_made_again() -> None:
    """At least once: the commit of the offsets is refused after the decision was acknowledged. Then the missing
    prediction comes.
    """
    kit = policy_kit(processing_guarantee="at_least_once")
    kit.event(ride())
    kit.broker.fail_next("commit", KafkaError(KafkaError.REBALANCE_IN_PROGRESS))
    late = PREDICTION.encode(prediction())
    kit.broker.run_before("committed", lambda: kit.broker.send("predictions", key=b"ride-1", value=late))
    kit.advance(31)
    assert [(made.revision, made.action) for made in kit.decisions] == [(0, "review"), (1, "accept")]


@pytest.mark.parametrize("delivered", [0, 1], ids=["the decision", "its state"])
def test_at_least_once_what_is_not_acknowledged_is_made_again(delivered: int) -> None:
    """A state in the log says that the decision is there: it must not come first."""
    kit = policy_kit(processing_guarantee="at_least_once")
    kit.event(ride())
    kit.broker.fail_next("deliver", KafkaError(KafkaError._MSG_TIMED_OUT), skip=delivered)
    kit.predict("ride-1", "duration", 1)
    assert [(made.revision, made.action) for made in kit.decisions] == [(0, "accept")] * (1 + delivered)


def test_at_least_once_a_record_that_is_too_large_stops_the_worker() -> None:
    kit = scorer_kit(processing_guarantee="at_least_once")
    kit.broker.send("ride_started", key=b"ride-1", value=kit.encode(ride()))
    kit.broker.max_message_bytes = 10
    with pytest.raises(FatalError, match=r"too large for its topic predictions: the one with the key b'ride-1', made "):
        kit.run()


def test_at_least_once_offsets_that_are_never_committed_stop_the_worker() -> None:
    kit = scorer_kit(processing_guarantee="at_least_once", broker_timeout=60)
    kit.broker.send("ride_started", key=b"ride-1", value=kit.encode(ride()))
    for _ in range(100):
        kit.broker.fail_next("commit", KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    with pytest.raises(UnavailableError, match="failing for over 60 s"):
        kit.run()


def test_dead_letters_that_come_again_after_an_abort_count_once() -> None:
    kit = scorer_kit(dead_letter_run=100, broker=FakeBroker(partitions=1))
    for _ in range(60):
        kit.broker.send("ride_started", key=b"x", value=b"not avro")
    kit.broker.fail_next("send_offsets_to_transaction", ABORTABLE)
    kit.run()
    assert len(kit.dead_letters) == 60


def test_a_failing_worker_that_is_told_to_stop_stops_at_once() -> None:
    kit = scorer_kit(broker_timeout=60)
    kit.broker.send("ride_started", key=b"ride-1", value=kit.encode(ride()))
    kit.broker.fail_next("commit_transaction", ABORTABLE)

    def stop_and_fail() -> None:
        kit.worker.stop()
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    kit.broker.run_before("committed", stop_and_fail)
    for _ in range(100):
        kit.broker.fail_next("committed", KafkaError(KafkaError._TIMED_OUT))
    before = kit.now
    kit.worker.run()
    assert (kit.now - before).total_seconds() < 1
    assert kit.predictions == []


def test_an_idle_worker_remembers_nothing_of_its_turns() -> None:
    limit = DeadLetterLimit("rides", run=1000, share=0.5)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(100_000):
            limit.observe([])
            limit.commit()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 10_000


# The policy


def test_a_registry_that_fails_while_the_policy_reads_the_event_is_no_fault_of_the_policy() -> None:
    failures = [RetriableError("the registry does not answer")]

    def read_event(value: bytes) -> RideStarted:
        if failures:
            raise failures.pop()
        return RIDE.decode(value)

    def policy(known: Known[RideStarted]) -> Verdict | None:
        return Verdict(str(known.event.pickup_zone)) if known.final else None

    rules = Rules(policy, ("duration",), deadline=30_000, remember=60_000, read_event=read_event)
    join = Join(rules, StateCodec(RIDES.decision_state.event_type, LOCAL, "decision_state"))
    join.event("ride-1", RIDE.encode(ride()), now=0)
    join.commit()
    with pytest.raises(RetriableError, match="the registry does not answer"):
        join.advance(31_000, 31_000, 31_000)
    join.rollback()
    join.advance(32_000, 32_000, 32_000)
    assert [made.verdict.action for made in join.changes().decisions] == ["74"]


def test_what_may_pass_delays_a_deadline_and_gives_no_dead_letter() -> None:
    failures = [RetriableError("the registry does not answer")]

    def policy(known: Known[RideStarted]) -> Verdict | None:
        if known.final and failures:
            raise failures.pop()
        return patient(known)

    kit = policy_kit(policy)
    kit.event(ride())
    assert [made.action for made in kit.advance(31)] == ["review"]
    assert (failures, kit.dead_letters) == ([], [])


@pytest.mark.parametrize("verdict", [Verdict(None), Verdict("accept", (1,))], ids=str)  # type: ignore[arg-type]
def test_a_verdict_that_is_not_text_is_a_dead_letter(verdict: Verdict) -> None:
    kit = policy_kit(lambda known: verdict if known.final else None)
    kit.event(ride("ride-1"), ride("ride-2"))
    assert kit.predict("ride-1", "duration", 7.5) == []
    assert kit.advance(31) == []
    assert len(kit.dead_letters) == 3
    assert {letter.key for letter in kit.dead_letters} == {b"ride-1", b"ride-2"}
    assert all("the action and the reasons of a verdict are text" in letter.reason for letter in kit.dead_letters)


def test_predictions_wait_while_too_many_have_no_subject_and_all_is_decided_in_the_end() -> None:
    kit = policy_kit(max_open=3, batch_size=1)
    names = [f"ride-{number}" for number in range(8)]
    for name in names:
        kit.predict(name, "duration", 7.5)
    assert kit.processor.gauges()["waiting"] == 3
    assert {partition.topic for partition in kit.processor.held()} == {"predictions"}
    kit.event(*map(ride, names))
    assert {(made.subject_id, made.action) for made in kit.decisions} == {(name, "accept") for name in names}
    assert kit.processor.gauges()["waiting"] == 0
    assert not kit.processor.held()


def test_decisions_that_are_made_late_are_counted() -> None:
    with capture_logs() as logs:
        kit = policy_kit(deadline_grace=10)
        kit.event(ride("ride-1"))
        kit.advance(35)
        kit.event(ride("ride-2"), ride("ride-3"))
        kit.advance(45)
        kit.advance(10)
    counted = [line["late_decisions"] for line in logs if "late_decisions" in line and line["event"] == "progress"]
    [warning] = [line for line in logs if line["event"].startswith("decided later")]
    assert counted == [2]
    assert (warning["decisions"], warning["most_seconds_after_deadline"]) == (2, 15.0)


# Records, handlers and topics that are not as they should be


@pytest.mark.parametrize("schema", ['"string"', '["null", "string"]', '{"type": "array", "items": "string"}'])
def test_a_writer_whose_schema_is_no_record_is_poison(schema: str) -> None:
    with pytest.raises(PoisonRecord, match="not readable as"):
        read(AvroSchema.from_text(schema), b"\x06abc", RIDES.subjects.event_type.latest)


class OddHeaders(Message):
    """A record with a header whose name is not UTF-8: this is what the client does when it is asked for them."""

    def headers(self) -> Any:
        raise SystemError("<method 'headers' of 'cimpl.Message' objects> returned a result with an exception set")


def record(value: bytes, kind: type[Message] = Message, **fields: Any) -> Message:
    return kind(topic="ride_started", partition=0, offset=0, key=b"ride-1", value=value, **fields)


def processed(records: Sequence[Message]) -> list[OutRecord]:
    processor = scoring_processor(
        RIDES, WorkerSettings(), LOCAL, "tip", lambda rides: [1.0] * len(rides), model=("tip", "1"), clock=lambda: 0
    )
    return processor.prepare(records)(dict).records


def test_a_record_whose_headers_cannot_be_read_is_scored_or_a_dead_letter_all_the_same() -> None:
    records = [record(RIDE.encode(ride()), OddHeaders), record(b"not avro", OddHeaders)]
    [output, letter] = processed(records)
    assert (output[0], output[2]) == ("predictions", b"ride-1")
    assert (letter[0], letter[3]) == ("dead_letters", b"not avro")
    assert raw_headers(records[0]) == []


def test_a_header_without_a_value_is_without_one_in_the_dead_letter() -> None:
    kit = scorer_kit()
    kit.broker.send("ride_started", key=b"x", value=b"not avro", headers=[("empty", b""), ("null", None)])
    kit.run()
    [letter] = kit.broker.records("dead_letters")
    assert raw_headers(letter)[:2] == [("empty", b""), ("null", None)]


def test_a_changelog_that_is_also_deleted_from_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"topic state has cleanup\.policy=compact,delete, not compact"):
        Admin({"state": 3}, policy="compact,delete").check(COMPACTED)
