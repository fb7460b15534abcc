"""The worker on the fake broker: whatever goes wrong, every event gets its prediction, and exactly once only one."""

from __future__ import annotations

import gc
import os
import re
import signal
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError

from braidstream.errors import FatalError, FencedError, PoisonRecord, RetriableError, UnavailableError
from braidstream.streaming.ports import Partition
from braidstream.streaming.scoring import Predict
from braidstream.testing.broker import FakeBroker
from braidstream.testing.kit import ScorerKit
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.unit.events import ride

RETRIABLE = KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, retriable=True)
TIMED_OUT = KafkaError(KafkaError._TIMED_OUT, retriable=True)
ABORTABLE = KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True)
FENCED = KafkaError(KafkaError._FENCED, fatal=True)


def distances(rides: Sequence[RideStarted]) -> list[float]:
    return [event.trip_distance or 0.0 for event in rides]


def make_kit(predict: Predict[RideStarted] = distances, **options: Any) -> ScorerKit[RideStarted]:
    return ScorerKit(RIDES, predict=predict, model="duration", **options)


@pytest.fixture(params=["exactly_once", "at_least_once"])
def guarantee(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def kit() -> ScorerKit[RideStarted]:
    return make_kit()


def rides(count: int) -> list[RideStarted]:
    return [ride(f"ride-{number}") for number in range(count)]


def subjects(kit: ScorerKit[RideStarted]) -> list[str]:
    """The rides that were predicted, in the order of their numbers."""
    return sorted((found.subject_id for found in kit.predictions), key=lambda name: int(name.removeprefix("ride-")))


def everything_is_committed(kit: ScorerKit[RideStarted]) -> bool:
    """Whether the group goes on behind the last record of every partition that has one."""
    committed = kit.broker.committed("kit")
    last = {Partition("ride_started", int(r.partition() or 0)): r.offset() for r in kit.broker.records("ride_started")}
    return {partition: offset - 1 for partition, offset in committed.items()} == last


def test_every_event_gets_one_prediction(guarantee: str) -> None:
    kit = make_kit(processing_guarantee=guarantee, batch_size=7)
    kit.send(*rides(50))
    assert subjects(kit) == [event.ride_id for event in rides(50)]
    assert everything_is_committed(kit)
    assert kit.dead_letters == []


def test_a_prediction_says_what_it_was_made_from(kit: ScorerKit[RideStarted]) -> None:
    at = kit.broker.send(
        "ride_started",
        key=b"ride-1",
        value=kit.encode(ride("ride-1")),
        headers=[("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("other", b"x")],
    )
    kit.run()
    [record] = kit.broker.records("predictions")
    assert record.key() == b"ride-1"
    assert record.partition() == at.number
    assert record.headers() == [
        ("source.topic", b"ride_started"),
        ("source.partition", str(at.number).encode()),
        ("source.offset", b"0"),
        ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ]


def test_a_prediction_stays_on_the_partition_of_its_event(kit: ScorerKit[RideStarted]) -> None:
    """Also where the producer partitions in another way."""
    for number in range(4):
        kit.broker.send("ride_started", key=b"ride-1", value=kit.encode(ride("ride-1")), partition=number)
    kit.run()
    assert [record.partition() for record in kit.broker.records("predictions")] == [0, 1, 2, 3]


def test_a_repeated_event_gives_the_same_prediction_id(kit: ScorerKit[RideStarted]) -> None:
    [first] = kit.send(ride())
    [second] = kit.send(ride())
    [other] = kit.send(ride("ride-2"))
    assert first.prediction_id == second.prediction_id != other.prediction_id


def test_a_new_worker_goes_on_where_the_old_one_was(guarantee: str) -> None:
    kit = make_kit(processing_guarantee=guarantee)
    kit.send(*rides(3))
    kit.restart()
    kit.send(*rides(5)[3:])
    assert subjects(kit) == [event.ride_id for event in rides(5)]


@pytest.mark.parametrize(
    ("call", "error", "done"),
    [
        ("begin_transaction", RETRIABLE, False),
        ("deliver", KafkaError(KafkaError._MSG_TIMED_OUT), False),
        ("send_offsets_to_transaction", RETRIABLE, False),
        ("send_offsets_to_transaction", RETRIABLE, True),
        ("send_offsets_to_transaction", ABORTABLE, False),
        ("send_offsets_to_transaction", TIMED_OUT, False),
        ("send_offsets_to_transaction", FENCED, False),
        ("commit_transaction", ABORTABLE, False),
        ("commit_transaction", TIMED_OUT, False),
        ("commit_transaction", TIMED_OUT, True),
        ("commit_transaction", FENCED, False),
        ("consume", KafkaError(KafkaError._TRANSPORT), False),
    ],
    ids=lambda value: value.name() if isinstance(value, KafkaError) else str(value),
)
def test_a_transaction_that_fails_is_made_again(
    kit: ScorerKit[RideStarted], call: str, error: KafkaError, done: bool
) -> None:
    kit.send(*rides(2))
    kit.broker.fail_next(call, error, done=done)
    kit.send(*rides(6)[2:])
    assert subjects(kit) == [event.ride_id for event in rides(6)]
    assert everything_is_committed(kit)


@pytest.mark.parametrize("second", ["abort_transaction", "init_transactions", "committed", "seek"])
def test_what_follows_a_failure_may_fail_too(kit: ScorerKit[RideStarted], second: str) -> None:
    if second == "init_transactions":
        kit.broker.fail_next("commit_transaction", TIMED_OUT)
    else:
        kit.broker.fail_next("commit_transaction", ABORTABLE)
        kit.broker.fail_next(second, TIMED_OUT)
    kit.send(*rides(4))
    assert subjects(kit) == [event.ride_id for event in rides(4)]
    assert everything_is_committed(kit)


@pytest.mark.parametrize("done", [False, True])
def test_at_least_once_repeats_but_loses_nothing(done: bool) -> None:
    for call, error in [
        ("deliver", KafkaError(KafkaError._MSG_TIMED_OUT)),
        ("commit", KafkaError(KafkaError.REBALANCE_IN_PROGRESS)),
        ("flush", KafkaError(KafkaError._FATAL)),
    ]:
        kit = make_kit(processing_guarantee="at_least_once")
        kit.broker.fail_next(call, error, done=done)
        kit.send(*rides(4))
        assert set(subjects(kit)) == {event.ride_id for event in rides(4)}
        assert everything_is_committed(kit)


def test_offsets_are_not_committed_before_the_records_are_acknowledged() -> None:
    kit = make_kit(processing_guarantee="at_least_once", broker_timeout=5)
    kit.broker.acknowledges = False
    with pytest.raises(UnavailableError, match="4 records were not acknowledged"):
        kit.send(*rides(4))
    assert kit.broker.committed("kit") == {}


def test_a_worker_that_was_fenced_once_goes_on(kit: ScorerKit[RideStarted]) -> None:
    kit.broker.run_before("commit_transaction", lambda: kit.broker.expire_transaction(kit.transactional_id))
    kit.send(*rides(4))
    assert subjects(kit) == [event.ride_id for event in rides(4)]


def test_a_worker_that_is_fenced_twice_in_a_row_stops(kit: ScorerKit[RideStarted]) -> None:
    for _ in range(2):
        kit.broker.run_before("commit_transaction", lambda: kit.broker.expire_transaction(kit.transactional_id))
    with pytest.raises(FencedError, match="another worker has this transactional id"):
        kit.send(*rides(4))
    assert kit.predictions == []


def test_a_worker_that_is_fenced_now_and_then_goes_on(kit: ScorerKit[RideStarted]) -> None:
    for number in range(3):
        kit.broker.run_before("commit_transaction", lambda: kit.broker.expire_transaction(kit.transactional_id))
        kit.send(ride(f"ride-{number}"))
    assert len(kit.predictions) == 3


@pytest.mark.parametrize(
    ("call", "error"),
    [("commit_transaction", ABORTABLE), ("commit_transaction", TIMED_OUT), ("send_offsets_to_transaction", TIMED_OUT)],
    ids=["abortable", "commit timed out", "offsets timed out"],
)
def test_a_failure_that_lasts_stops_the_worker(call: str, error: KafkaError) -> None:
    kit = make_kit(broker_timeout=60)
    for _ in range(100):
        kit.broker.fail_next(call, error)
    before = kit.now
    with pytest.raises(UnavailableError, match=r"failing for over 60 s \(BROKER_TIMEOUT\)"):
        kit.send(*rides(4))
    assert 60 <= (kit.now - before).total_seconds() < 70
    assert kit.predictions == []


def test_failures_that_are_far_apart_stop_nothing() -> None:
    kit = make_kit(broker_timeout=60)
    for _ in range(10):
        kit.broker.fail_next("consume", RETRIABLE, skip=5)
        kit.run()
        kit.sleep(30)
    assert len(kit.send(ride())) == 1


def test_a_broker_that_accepts_no_producer_is_given_up() -> None:
    broker = FakeBroker()
    broker.fail_next("init_transactions", TIMED_OUT)
    with pytest.raises(UnavailableError, match="the broker accepts no transactions"):
        make_kit(broker=broker)


def test_a_lost_offset_stops_the_worker_and_says_what_to_do(kit: ScorerKit[RideStarted]) -> None:
    kit.send(ride("ride-1"))
    [at] = kit.broker.committed("kit")
    kit.inbox.close()
    for _ in range(3):
        kit.broker.send("ride_started", key=b"ride-1", value=kit.encode(ride("ride-1")))
    kit.broker.delete_records(at, before=3)
    with pytest.raises(FatalError) as raised:
        kit.restart(crash=True)
    gap = rf"{at.topic} \[{at.number}\] offsets 1 to 2\."
    command = rf"--topic {at.topic}:{at.number} --reset-offsets --to-earliest --execute`"
    assert re.search(rf"the committed offset no longer exists: .* {gap} .* {command}", str(raised.value))


def test_poison_goes_to_the_dead_letters_and_the_others_go_on(guarantee: str) -> None:
    kit = make_kit(processing_guarantee=guarantee)
    value = kit.encode(ride("ride-1"))
    kit.broker.send("ride_started", key=b"ride-1", value=b"not avro")
    kit.broker.send("ride_started", key=b"ride-1", value=None)
    kit.broker.send("ride_started", key=b"another", value=value)
    kit.broker.send("ride_started", key=None, value=value)
    kit.broker.send("ride_started", key=b"ride-1", value=value + b"\x00")
    kit.send(ride("ride-1"))
    assert subjects(kit) == ["ride-1"]
    assert Counter((letter.stage, letter.key, letter.value) for letter in kit.dead_letters) == Counter(
        [
            ("VALUE_CONVERTER", b"ride-1", b"not avro"),
            ("VALUE_CONVERTER", b"ride-1", None),
            ("KEY_CONVERTER", b"another", value),
            ("KEY_CONVERTER", None, value),
            ("VALUE_CONVERTER", b"ride-1", value + b"\x00"),
        ]
    )
    assert everything_is_committed(kit)


def test_a_key_that_is_not_its_subject_says_so(kit: ScorerKit[RideStarted]) -> None:
    kit.send_raw(b"another", kit.encode(ride("ride-1")))
    [letter] = kit.dead_letters
    assert (letter.stage, letter.reason) == ("KEY_CONVERTER", "the key b'another' is not the ride_id 'ride-1'")


def test_a_model_that_fails_for_a_ride_costs_only_that_ride() -> None:
    def picky(events: Sequence[RideStarted]) -> list[float]:
        if any(event.ride_id == "ride-3" for event in events):
            raise ZeroDivisionError("no distance")
        return distances(events)

    kit = make_kit(predict=picky)
    kit.send(*rides(8))
    assert len(kit.predictions) == 7
    [letter] = kit.dead_letters
    assert (letter.key, letter.stage, letter.reason) == (b"ride-3", "TRANSFORMATION", "no distance")


@pytest.mark.parametrize(("count", "limit"), [(150, 100), (5000, 1000)])
def test_a_model_that_fails_for_every_ride_stops_the_worker_and_empties_nothing(
    guarantee: str, count: int, limit: int
) -> None:
    called: list[int] = []

    def broken(events: Sequence[RideStarted]) -> list[float]:
        called.append(len(events))
        raise KeyError("surge")

    broker = FakeBroker(partitions=1)
    kit = make_kit(predict=broken, processing_guarantee=guarantee, broker=broker, dead_letter_run=limit)
    for event in rides(count):
        kit.broker.send("ride_started", key=event.ride_id.encode(), value=kit.encode(event))
    with pytest.raises(FatalError, match=r"(?s)KeyError: 'surge'.*it goes on at the first record of this batch"):
        kit.run()
    assert len(called) <= limit + 20
    assert (kit.dead_letters, kit.predictions) == ([], [])
    assert kit.broker.committed("kit") == {}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_ends_the_process_in_the_middle_of_a_batch_commits_nothing(error: type[BaseException]) -> None:
    def ends(events: Sequence[RideStarted]) -> list[float]:
        if any(event.ride_id == "ride-3" for event in events):
            raise error
        return distances(events)

    kit = make_kit(predict=ends)
    for event in rides(8):
        kit.broker.send("ride_started", key=event.ride_id.encode(), value=kit.encode(event))
    with pytest.raises(FatalError if error is MemoryError else error):
        kit.worker.run()
    assert (kit.predictions, kit.dead_letters) == ([], [])
    assert kit.broker.committed("kit") == {}


class Held:
    """Something that a frame holds."""


@pytest.mark.parametrize("raised", [ValueError, PoisonRecord], ids=lambda error: error.__name__)
def test_what_failed_holds_no_memory_until_the_garbage_is_collected(raised: Callable[..., Exception]) -> None:
    held: list[weakref.ref[Held]] = []

    def fails_for_some(events: Sequence[RideStarted]) -> list[float]:
        local = Held()
        held.append(weakref.ref(local))
        if any(event.ride_id in ("ride-3", "ride-30") for event in events):
            raise raised("TRANSFORMATION", "no") from KeyError(local)
        return distances(events)

    kit = make_kit(predict=fails_for_some)
    gc.collect()
    gc.disable()
    try:
        for event in rides(40):
            kit.broker.send("ride_started", key=event.ride_id.encode(), value=kit.encode(event))
        kit.run()
        left = [reference for reference in held if reference() is not None]
    finally:
        gc.enable()
    assert len(kit.dead_letters) == 2
    assert (len(held) > 5, left) == (True, [])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "fast"])
def test_a_prediction_that_is_no_number_is_a_dead_letter(value: Any) -> None:
    kit = make_kit(predict=lambda events: [value if event.ride_id == "ride-1" else 1.0 for event in events])
    kit.send(*rides(3))
    assert subjects(kit) == ["ride-0", "ride-2"]
    assert [letter.key for letter in kit.dead_letters] == [b"ride-1"]


def test_a_dead_letter_that_cannot_be_written_is_not_dropped(kit: ScorerKit[RideStarted]) -> None:
    kit.broker.fail_next("deliver", KafkaError(KafkaError._MSG_TIMED_OUT))
    kit.send_raw(b"ride-1", b"not avro")
    assert len(kit.dead_letters) == 1


def test_too_many_dead_letters_stop_the_worker_before_they_are_committed() -> None:
    kit = make_kit(dead_letter_run=5)
    for number in range(5):
        kit.broker.send("ride_started", key=b"x", value=b"not avro", partition=number % 4)
    with pytest.raises(FatalError, match="DEAD_LETTER_RUN"):
        kit.run()
    assert kit.dead_letters == []
    assert kit.broker.committed("kit") == {}


def test_what_the_handler_cannot_do_now_is_tried_again() -> None:
    calls: list[int] = []

    def unsteady(events: Sequence[RideStarted]) -> list[float]:
        calls.append(len(events))
        if len(calls) == 1:
            raise RetriableError("the feature store does not answer")
        return distances(events)

    kit = make_kit(predict=unsteady)
    kit.send(*rides(3))
    assert calls == [3, 3]
    assert len(kit.predictions) == 3


def test_records_in_hand_are_dropped_when_their_partition_goes(guarantee: str) -> None:
    """A rebalance between the two calls that fill a batch: the new owner reads what was in hand."""
    first = make_kit(processing_guarantee=guarantee)
    joined: list[ScorerKit[RideStarted]] = []

    def join() -> None:
        joined.append(make_kit(processing_guarantee=guarantee, broker=first.broker))

    for event in rides(20):
        first.broker.send("ride_started", key=event.ride_id.encode(), value=first.encode(event))
    first.broker.run_before("consume", join, skip=1)
    first.worker.step()
    [second] = joined
    run_both(first, second)
    assert len(first.inbox.owned) == len(second.inbox.owned) == 2
    assert subjects(first) == [event.ride_id for event in rides(20)]
    assert everything_is_committed(first)


def run_both(*kits: ScorerKit[RideStarted]) -> None:
    for _ in range(5):
        for kit in kits:
            kit.run()


@pytest.mark.parametrize(
    "leave",
    [lambda kit: kit.stop(), lambda kit: kit.stop(crash=True)],
    ids=["stopped", "crashed"],
)
def test_a_worker_that_goes_is_replaced_by_the_others(leave: Callable[[ScorerKit[RideStarted]], None]) -> None:
    first = make_kit()
    second = make_kit(broker=first.broker)
    run_both(first, second)
    leave(second)
    first.send(*rides(20))
    assert subjects(first) == [event.ride_id for event in rides(20)]
    assert len(first.inbox.owned) == 4


def test_a_worker_that_was_given_up_without_noticing_commits_nothing() -> None:
    """It wakes up with a batch in hand, and its partitions belong to another one."""
    asleep = make_kit()
    other: list[ScorerKit[RideStarted]] = []

    def replace() -> None:
        asleep.broker.expire_member(asleep.consumer)
        other.append(make_kit(broker=asleep.broker))

    asleep.broker.run_before("begin_transaction", replace)
    asleep.send(*rides(10))
    run_both(asleep, *other)
    assert subjects(asleep) == [event.ride_id for event in rides(10)]


def test_it_finishes_the_batch_in_hand_when_it_is_told_to_stop() -> None:
    signals = [signal.SIGTERM]

    def predict(events: Sequence[RideStarted]) -> list[float]:
        if signals:
            os.kill(os.getpid(), signals.pop())
        return distances(events)

    kit = make_kit(predict=predict, batch_size=6)
    for event in rides(20):
        kit.broker.send("ride_started", key=event.ride_id.encode(), value=kit.encode(event))
    before = signal.getsignal(signal.SIGTERM)
    kit.worker.run()
    assert len(kit.predictions) == 6
    assert sum(kit.broker.committed("kit").values()) == 6
    assert signal.getsignal(signal.SIGTERM) is before
    kit.restart(crash=True)
    assert subjects(kit) == [event.ride_id for event in rides(20)]


def test_a_worker_that_has_its_partitions_is_ready(kit: ScorerKit[RideStarted]) -> None:
    assert set(kit.watcher.readiness.reasons.values()) == {None}


def test_a_worker_that_goes_back_says_why_until_it_goes_on(kit: ScorerKit[RideStarted]) -> None:
    noted: list[str | None] = []
    kit.broker.fail_next("commit_transaction", ABORTABLE)
    kit.broker.run_before("committed", lambda: noted.append(kit.watcher.readiness.reasons["committing"]))
    kit.send(ride())
    assert "the transaction on predictions was aborted (ILLEGAL_GENERATION)" in str(noted)
    assert kit.watcher.readiness.reasons["committing"] is None
