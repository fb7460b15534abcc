"""What the metrics say after batches that are known."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from braidstream.deciding.policy import Known, Verdict
from braidstream.errors import RetriableError
from braidstream.streaming.inbox import Reading
from braidstream.streaming.observer import View
from braidstream.streaming.ports import Partition
from braidstream.streaming.processor import Work
from braidstream.testing.broker import FakeBroker
from braidstream.testing.kit import PolicyKit, ScorerKit
from braidstream.watching.metrics import Metrics, reason_of
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.unit.events import ride

ABORTABLE = KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True)
TIMED_OUT = KafkaError(KafkaError._TIMED_OUT, retriable=True)
NOW = 1_000_000


def patient(known: Known[RideStarted]) -> Verdict | None:
    if not known.final:
        return None
    return Verdict("review" if known.missing else "accept")


def scorer_kit(**options: Any) -> ScorerKit[RideStarted]:
    return ScorerKit(RIDES, predict=lambda rides: [1.0] * len(rides), model="duration", **options)


def policy_kit(**options: Any) -> PolicyKit[RideStarted]:
    return PolicyKit(RIDES, patient, expected=["duration", "tip"], deadline=30, **options)


def value(kit: ScorerKit[RideStarted] | PolicyKit[RideStarted], name: str, **labels: str) -> float | None:
    assert kit.watcher.metrics is not None
    return kit.watcher.metrics.registry.get_sample_value(f"braidstream_{name}", labels)


def view_again(kit: ScorerKit[RideStarted] | PolicyKit[RideStarted]) -> None:
    """Let the loop show what it holds, which it does once a second."""
    kit.run()
    kit.sleep(1)
    kit.run()


# A model's worker


def test_records_are_counted_by_topic_and_dead_letters_by_reason() -> None:
    kit = scorer_kit()
    kit.send(ride("ride-1"), ride("ride-2"), ride("ride-3"))
    kit.send_raw(b"ride-4", b"not avro")
    assert value(kit, "records_consumed_total", topic="ride_started") == 4
    assert value(kit, "records_produced_total", topic="predictions") == 3
    assert value(kit, "records_produced_total", topic="dead_letters") == 1
    wrong_format = {"stage": "VALUE_CONVERTER", "exception": "braidstream.errors.PoisonRecord"}
    assert value(kit, "dead_letters_total", **wrong_format) == 1


def test_a_handler_that_raises_is_a_reason() -> None:
    def predict(rides: Any) -> list[float]:
        return [1.0 / (event.trip_distance or 0.0) for event in rides]

    kit = ScorerKit(RIDES, predict=predict, model="duration")
    kit.send(ride("ride-1"), ride("ride-2", trip_distance=0.0))
    reason = {"stage": "TRANSFORMATION", "exception": "builtins.ZeroDivisionError"}
    assert value(kit, "dead_letters_total", **reason) == 1
    assert value(kit, "records_produced_total", topic="predictions") == 1


def test_batches_are_measured_once_each() -> None:
    kit = scorer_kit(batch_size=4, broker=FakeBroker(partitions=1))
    kit.send(*(ride(f"ride-{number}") for number in range(10)))
    batches = {bound: value(kit, "batch_records_bucket", le=bound) for bound in ("1.0", "3.0", "10.0", "+Inf")}
    assert batches == {"1.0": 0, "3.0": 1, "10.0": 3, "+Inf": 3}
    assert value(kit, "batch_records_sum") == 10
    assert value(kit, "handler_seconds_count") == 3
    assert value(kit, "transaction_seconds_count") == 3


def test_a_batch_that_is_undone_is_counted_when_it_is_done() -> None:
    kit = scorer_kit()
    kit.broker.fail_next("commit_transaction", ABORTABLE)
    kit.send(ride())
    assert value(kit, "rollbacks_total", reason="ILLEGAL_GENERATION") == 1
    assert value(kit, "records_consumed_total", topic="ride_started") == 1
    assert value(kit, "batch_records_count") == 1


def test_the_lag_is_told_by_partition() -> None:
    kit = scorer_kit(batch_size=2, broker=FakeBroker(partitions=2))
    for number in range(5):
        kit.broker.send("ride_started", key=b"x", value=kit.encode(ride("x")), partition=number % 2)
    kit.sleep(1)
    kit.worker.step()
    lags = [value(kit, "lag_records", topic="ride_started", partition=number) for number in ("0", "1")]
    assert sum(lag or 0 for lag in lags) == 3
    view_again(kit)
    assert value(kit, "lag_records", topic="ride_started", partition="0") == 0
    assert value(kit, "lag_seconds", topic="ride_started", partition="0") == 0
    assert value(kit, "partition_paused", topic="ride_started", partition="0") == 0
    assert value(kit, "partition_stalled", topic="ride_started", partition="0") == 0


def test_rebalances_are_counted_and_partitions_that_went_are_told_no_more() -> None:
    broker = FakeBroker(partitions=2)
    first = scorer_kit(broker=broker)
    assert value(first, "rebalances_total", event="assigned") == 1
    second = scorer_kit(broker=broker)
    view_again(first)
    view_again(second)
    assert value(first, "rebalances_total", event="revoked") == 1
    told = [value(kit, "lag_records", topic="ride_started", partition="1") for kit in (first, second)]
    assert sorted(lag is None for lag in told) == [False, True]


def test_the_checks_of_readiness_are_told() -> None:
    kit = scorer_kit()
    assert value(kit, "check", check="assigned") == 1
    kit.watcher.readiness.note("broker_reachable", "nobody answers")
    assert value(kit, "check", check="broker_reachable") == 0
    assert value(kit, "loop_turned_timestamp_seconds") == kit.now.timestamp()


# A decision service


def test_decisions_are_counted_by_what_became_of_them() -> None:
    kit = policy_kit()
    kit.event(ride("ride-1"), ride("ride-2"))
    kit.event(ride("ride-2"))
    for model in ("duration", "tip", "tip"):
        kit.predict("ride-1", model, 1.0)
    kit.predict("ride-3", "tip", 1.0)
    kit.advance(31)
    kit.predict("ride-2", "duration", 1.0)
    kit.predict("ride-2", "tip", 1.0)
    assert value(kit, "decisions_total", completeness="complete") == 1
    assert value(kit, "decisions_total", completeness="partial") == 1
    assert value(kit, "repeats_total", of="event") == 1
    assert value(kit, "repeats_total", of="prediction") == 1
    assert value(kit, "orphans_total") == 1
    assert value(kit, "late_predictions_total") == 2
    assert value(kit, "revisions_total") == 1
    assert value(kit, "late_decisions_total") == 0
    assert value(kit, "records_consumed_total", topic="ride_started") == 3
    assert value(kit, "records_consumed_total", topic="predictions") == 6
    assert value(kit, "records_produced_total", topic="decisions") == 3


def test_what_is_held_is_told_by_state() -> None:
    kit = policy_kit()
    kit.event(ride("ride-1"), ride("ride-2"), ride("ride-3"))
    for model in ("duration", "tip"):
        kit.predict("ride-1", model, 1.0)
    kit.predict("ride-4", "tip", 1.0)
    view_again(kit)
    held = {state: value(kit, "subjects", state=state) for state in ("open", "waiting", "closed")}
    assert held == {"open": 2, "waiting": 1, "closed": 1}
    assert value(kit, "restore_records_left") == 0


def test_a_decision_that_is_late_is_counted() -> None:
    kit = policy_kit(deadline_grace=10)
    kit.event(ride())
    kit.stop(crash=True)
    kit.sleep(100)
    kit.start()
    assert value(kit, "late_decisions_total") == 1


def test_a_paused_topic_is_told() -> None:
    kit = policy_kit(max_open=1, broker=FakeBroker(partitions=1))
    kit.event(ride("ride-1"), ride("ride-2"))
    view_again(kit)
    assert value(kit, "partition_paused", topic="ride_started", partition="0") == 1
    assert value(kit, "partition_paused", topic="predictions", partition="0") == 0


# What the kits have no time for


def make_metrics() -> Metrics:
    return Metrics(dict, tuple, lambda: NOW)


def test_the_end_to_end_latency_is_from_the_records_timestamp() -> None:
    metrics = make_metrics()
    metrics.committed(
        Work(consumed={"rides": 3}, timestamps=[("rides", NOW - 1500), ("rides", NOW - 200), ("rides", NOW + 50)])
    )
    found = metrics.registry.get_sample_value
    assert found("braidstream_end_to_end_seconds_count", {"topic": "rides"}) == 3
    assert found("braidstream_end_to_end_seconds_sum", {"topic": "rides"}) == pytest.approx(1.7)


@pytest.mark.parametrize(
    ("reading", "seconds"),
    [
        (Reading(5, 9, NOW - 2000, paused=False), 2.0),
        (Reading(9, 9, NOW - 2000, paused=False), 0.0),
        (Reading(5, 9, NOW + 2000, paused=False), 0.0),
        (Reading(5, 9, None, paused=False), None),
    ],
    ids=["behind", "at the end", "a clock ahead", "nothing read yet"],
)
def test_the_lag_in_seconds_is_the_age_of_the_last_record_read(reading: Reading, seconds: float | None) -> None:
    metrics = make_metrics()
    metrics.viewed(View({Partition("rides", 0): reading}, {}, {}, drained=True))
    at = {"topic": "rides", "partition": "0"}
    assert metrics.registry.get_sample_value("braidstream_lag_seconds", at) == seconds


def test_what_a_worker_is_can_be_joined_to_its_metrics() -> None:
    metrics = make_metrics()
    metrics.describe(group="duration", model_version="abc")
    labels = {"group": "duration", "model_version": "abc"}
    assert metrics.registry.get_sample_value("braidstream_worker_info", labels) == 1


def test_the_reason_of_a_rollback_is_kafkas_or_the_innermost_class() -> None:
    for cause, reason in ((KafkaException(TIMED_OUT), "_TIMED_OUT"), (TimeoutError("no answer"), "TimeoutError")):
        with pytest.raises(RetriableError) as raised:
            raise RetriableError("it failed") from cause
        assert reason_of(raised.value) == reason
    assert reason_of(RetriableError("try again")) == "RetriableError"
