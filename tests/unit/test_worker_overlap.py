"""Publishing in the background while the next batch is prepared: nothing is lost, done twice, or left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message
from structlog.testing import capture_logs

from braidstream.errors import FatalError, RetriableError
from braidstream.streaming.ports import Partition
from braidstream.streaming.processor import Rest
from braidstream.streaming.publisher import COMMIT_EVERY
from braidstream.testing.worker import START
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.unit.by_hand import LateScorerKit
from tests.unit.events import ride
from tests.unit.test_worker import ABORTABLE, FENCED, TIMED_OUT, everything_is_committed

SIZE = 8
"""Records of a whole batch; two are a backlog."""


class Predict:
    """A model that notes the sizes of its batches."""

    def __init__(self, log: list[object]) -> None:
        self._log = log

    def __call__(self, rides: Sequence[RideStarted]) -> list[float]:
        self._log.append(len(rides))
        return [1.0] * len(rides)


def make_kit(log: list[object] | None = None, **options: Any) -> LateScorerKit:
    predict = Predict(log if log is not None else [])
    return LateScorerKit(RIDES, predict=predict, model="duration", **({"batch_size": SIZE} | options))


def backlog(kit: LateScorerKit, count: int) -> None:
    """So many rides are there before the worker takes its next turn."""
    for number in range(count):
        name = f"ride-{number}"
        kit.broker.send("ride_started", key=name.encode(), value=kit.encode(ride(name)))


def everything_happened_once(kit: LateScorerKit, count: int) -> None:
    everything_happened(kit, count, "exactly_once")


def everything_happened(kit: LateScorerKit, count: int, guarantee: str) -> None:
    predicted = Counter(found.subject_id for found in kit.predictions)
    assert predicted.keys() == {f"ride-{number}" for number in range(count)}
    assert guarantee == "at_least_once" or set(predicted.values()) == {1}
    assert everything_is_committed(kit)


@pytest.fixture(params=["exactly_once", "at_least_once"])
def guarantee(request: pytest.FixtureRequest) -> str:
    return str(request.param)


WAITS = {"exactly_once": "send_offsets_to_transaction", "at_least_once": "flush"}
"""The client's first call in the background."""


def test_a_batch_of_a_backlog_is_published_while_the_next_is_prepared(guarantee: str) -> None:
    log: list[object] = []
    kit = make_kit(log, processing_guarantee=guarantee)
    backlog(kit, 2 * SIZE)
    for _ in range(2):
        kit.broker.run_before(WAITS[guarantee], lambda: log.append("published"))
    kit.worker.step()
    assert (log, kit.background.waiting) == ([SIZE], 1)
    kit.worker.step()
    assert (log, kit.background.waiting) == ([SIZE, SIZE, "published"], 1)
    assert sum(kit.broker.committed("kit").values()) == SIZE
    kit.run()
    assert log == [SIZE, SIZE, "published", "published"]
    everything_happened_once(kit, 2 * SIZE)


def test_without_a_backlog_nothing_waits_for_the_next_batch(guarantee: str) -> None:
    kit = make_kit(processing_guarantee=guarantee)
    backlog(kit, 1)
    kit.worker.step()
    assert kit.background.waiting == 0
    everything_happened_once(kit, 1)


FAILURES = [
    ("send_offsets_to_transaction", ABORTABLE, False),
    ("deliver", KafkaError(KafkaError._MSG_TIMED_OUT), False),
    ("commit_transaction", ABORTABLE, False),
    ("commit_transaction", TIMED_OUT, False),
    ("commit_transaction", TIMED_OUT, True),
    ("commit_transaction", FENCED, False),
]
failures = pytest.mark.parametrize(
    ("call", "error", "done"), FAILURES, ids=lambda value: value.name() if isinstance(value, KafkaError) else str(value)
)


@failures
def test_what_failed_in_the_background_is_read_again_before_anything_behind_it(
    call: str, error: KafkaError, done: bool
) -> None:
    kit = make_kit()
    backlog(kit, 3 * SIZE)
    kit.broker.fail_next(call, error, done=done)
    kit.worker.step()
    kit.background.run()
    assert kit.worker.step() == 0
    assert len(kit.predictions) == (SIZE if done else 0)
    assert sum(kit.broker.committed("kit").values()) == len(kit.predictions)
    kit.run()
    everything_happened_once(kit, 3 * SIZE)


def test_a_fatal_error_in_the_background_ends_the_worker_and_the_next_one_goes_on() -> None:
    kit = make_kit()
    backlog(kit, 3 * SIZE)
    kit.broker.fail_next("send_offsets_to_transaction", KafkaError(KafkaError._INVALID_ARG))
    kit.worker.step()
    kit.background.run()
    with pytest.raises(FatalError, match=r"the transaction on .* failed"):
        kit.worker.step()
    kit.restart(crash=True)
    everything_happened_once(kit, 3 * SIZE)


def test_what_was_not_published_when_a_worker_crashes_is_for_the_next_one(guarantee: str) -> None:
    kit = make_kit(processing_guarantee=guarantee)
    backlog(kit, 2 * SIZE)
    kit.worker.step()
    kit.restart(crash=True)
    everything_happened(kit, 2 * SIZE, guarantee)


def test_a_batch_that_cannot_be_prepared_does_not_undo_the_one_before() -> None:
    calls: list[int] = []

    def unsteady(rides: Sequence[RideStarted]) -> list[float]:
        calls.append(len(rides))
        if len(calls) == 2:
            raise RetriableError("the feature store does not answer")
        return [1.0] * len(rides)

    kit = LateScorerKit(RIDES, predict=unsteady, model="duration", batch_size=SIZE)
    backlog(kit, 2 * SIZE)
    kit.worker.step()
    assert kit.worker.step() == 0
    assert len(kit.predictions) == SIZE
    kit.run()
    assert calls == [SIZE] * 3
    everything_happened_once(kit, 2 * SIZE)


# Rebalances


def run_both(*kits: LateScorerKit) -> None:
    for _ in range(5):
        for kit in kits:
            kit.run()


def test_a_partition_is_let_go_when_what_was_read_of_it_is_published(guarantee: str) -> None:
    first = make_kit(processing_guarantee=guarantee)
    backlog(first, 2 * SIZE)
    first.worker.step()
    owned: list[Collection[Partition]] = []
    first.broker.run_before(WAITS[guarantee], lambda: owned.append(set(first.inbox.owned)))
    second = make_kit(processing_guarantee=guarantee, broker=first.broker)
    run_both(first, second)
    assert len(owned[0]) == 4
    assert len(first.inbox.owned) == len(second.inbox.owned) == 2
    everything_happened_once(first, 2 * SIZE)


@failures
def test_what_cannot_be_published_before_a_partition_goes_is_left_to_its_new_owner(
    call: str, error: KafkaError, done: bool
) -> None:
    first = make_kit()
    backlog(first, 2 * SIZE)
    first.worker.step()
    first.broker.fail_next(call, error, done=done)
    second = make_kit(broker=first.broker)
    run_both(first, second)
    everything_happened_once(first, 2 * SIZE)


def test_what_was_read_of_a_partition_that_goes_meanwhile_is_dropped(guarantee: str) -> None:
    """It goes between the two calls that fill a batch, while the batch before is still to be published."""
    first = make_kit(processing_guarantee=guarantee)
    joined: list[LateScorerKit] = []
    backlog(first, 3 * SIZE)
    first.worker.step()
    assert first.background.waiting == 1
    first.broker.run_before(
        "consume", lambda: joined.append(make_kit(processing_guarantee=guarantee, broker=first.broker)), skip=1
    )
    first.worker.step()
    assert len(first.inbox.owned) < 4
    run_both(first, *joined)
    everything_happened_once(first, 3 * SIZE)


def test_a_worker_that_was_given_up_publishes_nothing_of_what_another_has_read() -> None:
    first = make_kit()
    backlog(first, 2 * SIZE)
    first.worker.step()
    first.broker.expire_member(first.consumer)
    second = make_kit(broker=first.broker)
    assert len(second.inbox.owned) == 4
    run_both(first, second)
    everything_happened_once(first, 2 * SIZE)


class Noted:
    """A processor, and what it was told, in order."""

    def __init__(self, processor: Any, log: list[str]) -> None:
        self._processor = processor
        self._log = log
        self.fails = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def prepare(self, records: Sequence[Message]) -> Rest:
        self._log.append("prepare")
        if self.fails:
            self.fails = False
            raise RetriableError("the registry does not answer")
        prepared: Rest = self._processor.prepare(records)
        return prepared

    def commit(self) -> None:
        self._log.append("commit")
        self._processor.commit()

    def rollback(self) -> None:
        self._log.append("rollback")
        self._processor.rollback()

    def rebalanced(self, revoked: Collection[Partition], assigned: Collection[Partition]) -> None:
        if revoked or assigned:
            self._log.append(f"-{len(revoked)} +{len(assigned)}")
        self._processor.rebalanced(revoked, assigned)


class NotedKit(LateScorerKit):
    log: list[str]
    noted: Noted

    def _make_processor(self) -> Any:
        self.log = []
        self.noted = Noted(super()._make_processor(), self.log)
        return self.noted


@pytest.mark.parametrize("fails", [False, True])
def test_a_rebalance_is_heard_after_what_came_before_it_is_in_the_log(fails: bool) -> None:
    """Also when the batch that came with it cannot be prepared."""
    kit = NotedKit(RIDES, predict=lambda rides: [1.0] * len(rides), model="duration", batch_size=SIZE)
    backlog(kit, 2 * SIZE)
    kit.worker.step()
    other = make_kit(broker=kit.broker)
    kit.background.run()
    kit.noted.fails = fails
    del kit.log[:]
    kit.worker.step()
    assert kit.log[:3] == ["commit", "prepare", "-2 +0"]
    assert ("rollback" in kit.log) is fails
    run_both(kit, other)
    everything_happened_once(kit, 2 * SIZE)


# Offsets without a transaction


def step_with(kit: LateScorerKit, name: str) -> int:
    """Send a ride and take a turn; how many offsets are committed then."""
    kit.broker.send("ride_started", key=name.encode(), value=kit.encode(ride(name)))
    kit.worker.step()
    return sum(kit.broker.committed("kit").values())


def test_offsets_are_committed_together_and_soon() -> None:
    kit = make_kit(processing_guarantee="at_least_once")
    assert [step_with(kit, name) for name in "abc"] == [1, 1, 1]
    kit.sleep(2 * COMMIT_EVERY)
    assert [step_with(kit, name) for name in "de"] == [4, 4]
    kit.worker.step()
    assert sum(kit.broker.committed("kit").values()) == 5


def test_what_was_put_off_is_committed_before_a_partition_goes() -> None:
    first = make_kit(processing_guarantee="at_least_once")
    assert [step_with(first, f"ride-{number}") for number in range(8)] == [1] * 8
    second = make_kit(processing_guarantee="at_least_once", broker=first.broker)
    run_both(first, second)
    everything_happened_once(first, 8)


def test_what_cannot_be_committed_before_a_partition_goes_is_repeated_by_its_new_owner() -> None:
    first = make_kit(processing_guarantee="at_least_once")
    assert [step_with(first, f"ride-{number}") for number in range(8)] == [1] * 8
    first.broker.fail_next("commit", KafkaError(KafkaError._TIMED_OUT))
    second = make_kit(processing_guarantee="at_least_once", broker=first.broker)
    with capture_logs() as logs:
        run_both(first, second)
    assert "going back to the committed offsets" in [line["event"] for line in logs]
    everything_happened(first, 8, "at_least_once")


# Stopping, and counting


def stopping_kit(**options: Any) -> LateScorerKit:
    """A worker that is told to stop while it prepares its second batch."""
    calls: list[int] = []

    def predict(rides: Sequence[RideStarted]) -> list[float]:
        calls.append(len(rides))
        if len(calls) == 2:
            kit.worker.stop()
        return [1.0] * len(rides)

    kit = LateScorerKit(RIDES, predict=predict, model="duration", batch_size=SIZE, **options)
    backlog(kit, 3 * SIZE)
    return kit


def test_a_worker_that_is_told_to_stop_finishes_what_is_being_published(guarantee: str) -> None:
    kit = stopping_kit(processing_guarantee=guarantee)
    with capture_logs() as logs:
        kit.worker.run()
    assert len(kit.predictions) == sum(kit.broker.committed("kit").values()) == 2 * SIZE
    assert kit.background.waiting == 0
    [progress] = [line for line in logs if line["event"] == "progress"]
    assert progress["in_per_s"] == progress["out_per_s"] > 0
    assert (progress["lag"], logs[-1]["event"]) == (SIZE, "stopped, with nothing in hand")


def test_a_worker_whose_last_batch_cannot_be_published_stops_all_the_same() -> None:
    kit = stopping_kit()
    kit.broker.fail_next("commit_transaction", ABORTABLE, skip=1)
    with capture_logs() as logs:
        kit.worker.run()
    assert len(kit.predictions) == SIZE
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == [
        "what was in hand is left to be read again"
    ]
    kit.restart(crash=True)
    everything_happened_once(kit, 3 * SIZE)


def test_what_is_tried_again_is_counted_once() -> None:
    kit = make_kit()
    kit.broker.send("ride_started", key=b"x", value=b"not avro")
    backlog(kit, 20)
    for error in (ABORTABLE, TIMED_OUT):
        kit.broker.fail_next("commit_transaction", error, skip=1)
    with capture_logs() as logs:
        kit.run()
        kit.sleep(10)
        kit.run()
    [progress] = [line for line in logs if line["event"] == "progress"]
    seconds = (kit.now - START).total_seconds()
    assert progress["in_per_s"] == round(21 / seconds, 1)
    assert progress["out_per_s"] == round(20 / seconds, 1)
    assert progress["dead_letters"] == 1
    everything_happened_once(kit, 20)
