"""A subject is handled once: whatever comes again, whoever restarts, and for as long as that is remembered."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from braidstream.events import Events
from braidstream.streaming import once
from braidstream.streaming.dead_letters import REPLAY_GROUP
from braidstream.testing.broker import FakeBroker
from braidstream.testing.kit import HandlerKit
from schemas.ride_started import RideStarted
from tests.notifications import NOTIFICATIONS, NOTIFIED, NOTIFYING, OUTSIDE, Notification, notify
from tests.unit.events import ride

Kit = HandlerKit[RideStarted, Notification]


def make_kit(broker: FakeBroker | None = None, **settings: Any) -> Kit:
    """A consumer that notifies of each ride once."""
    return HandlerKit(NOTIFYING, notify, writes=NOTIFICATIONS, once=NOTIFIED, broker=broker, **settings)


def write(kit: Kit, *rides: RideStarted) -> None:
    """Write events while no worker looks."""
    for event in rides:
        kit.broker.send("ride_started", key=event.ride_id.encode(), value=kit.encode(event))


def notified(kit: Kit) -> list[str]:
    """The rides that anybody was notified of, in order."""
    return [output.ride_id for output in kit.outputs]


def changelog_of(kit: Kit) -> list[tuple[bytes | None, bool]]:
    """The keys of the changelog's records, and whether each is a tombstone."""
    return [(record.key(), record.value() is None) for record in kit.broker.records("notified")]


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_a_repeat_gives_nothing_and_is_counted(guarantee: str) -> None:
    kit = make_kit(processing_guarantee=guarantee)
    assert len(kit.send(ride("a"), ride("b"))) == 2
    assert kit.send(ride("a", passenger_count=3), ride("c")) == [Notification(user_id="user-74", ride_id="c")]
    kit.restart()
    assert kit.send(ride("b")) == []
    kit.restart(crash=True)
    assert kit.send(ride("c"), ride("a")) == []
    assert kit.processor.gauges() == {"handled": 3, "restoring": 0}
    assert kit.watcher.metrics is not None
    assert 'braidstream_repeats_total{of="event"} 2.0' in kit.watcher.metrics.render().decode()


def test_an_event_that_gives_nothing_is_handled_too() -> None:
    kit = make_kit()
    assert kit.send(ride("a", passenger_count=0)) == []
    assert kit.send(ride("a", passenger_count=1)) == []


def test_of_two_events_in_one_batch_the_first_counts() -> None:
    kit = make_kit()
    assert kit.send(ride("a", passenger_count=1), ride("a", passenger_count=3)) == [
        Notification(user_id="user-74", ride_id="a")
    ]
    assert changelog_of(kit) == [(b"a", False)]


def test_what_failed_is_not_handled_and_may_come_again() -> None:
    kit = make_kit()
    assert kit.send(ride("a", pickup_zone=OUTSIDE)) == []
    assert changelog_of(kit) == []
    assert len(kit.send(ride("a"))) == 1
    assert len(kit.dead_letters) == 1


def test_a_dead_letter_that_is_sent_back_is_handled_unless_its_subject_was() -> None:
    kit = make_kit()

    def send_back(name: str, group: bytes = b"kit") -> None:
        kit.broker.send(
            "ride_started", key=name.encode(), value=kit.encode(ride(name)), headers=[(REPLAY_GROUP, group)]
        )

    kit.send(ride("a", pickup_zone=OUTSIDE), ride("b"))
    send_back("a", group=b"another")
    send_back("a")
    send_back("b")
    kit.run()
    assert sorted(notified(kit)) == ["a", "b"]


def test_in_one_batch_too_the_first_that_goes_well_counts() -> None:
    kit = make_kit()
    bad = ride("a", pickup_zone=OUTSIDE)
    assert len(kit.send(bad, ride("a"), ride("a", passenger_count=4), bad)) == 1
    # The first is a dead letter, the last is the repeat of one that was handled.
    assert len(kit.dead_letters) == 1


def test_a_repeat_that_cannot_be_read_is_a_dead_letter_all_the_same() -> None:
    kit = make_kit()
    kit.send(ride("a"))
    kit.send_raw(b"a", b"not avro")
    assert len(kit.dead_letters) == 1


def test_the_handler_is_not_asked_for_repeats_of_earlier_batches() -> None:
    asked: list[str] = []

    def note(rides: Events[RideStarted]) -> list[list[Notification]]:
        assert [event.ride_id for event in rides] == list(rides.keys)
        assert rides.columns["pickup_zone"].tolist() == [event.pickup_zone for event in rides]
        asked.extend(rides.keys)
        return [[] for _ in rides]

    kit = HandlerKit(NOTIFYING, note, writes=NOTIFICATIONS, once=NOTIFIED)
    kit.send(ride("a"), ride("c"))
    kit.send(ride("a"), ride("b", pickup_zone=1), ride("c"), ride("d", pickup_zone=2))
    assert sorted(asked) == ["a", "b", "c", "d"]


def test_after_remember_a_subject_is_a_new_one_and_its_memory_is_free() -> None:
    kit = make_kit(remember=60)
    kit.send(ride("a"))
    assert kit.advance(59) == []
    assert kit.send(ride("a")) == []
    assert changelog_of(kit) == [(b"a", False)]
    kit.advance(1)
    assert changelog_of(kit) == [(b"a", False), (b"a", True)]
    assert kit.processor.gauges()["handled"] == 0
    assert len(kit.send(ride("a"))) == 1


def test_what_expires_while_no_worker_runs_is_forgotten_by_the_next() -> None:
    kit = make_kit(remember=60)
    kit.send(ride("a"), ride("b"))
    kit.stop()
    kit.sleep(100)
    write(kit, ride("a"))
    kit.start()
    assert sorted(notified(kit)) == ["a", "a", "b"]
    assert (b"b", True) in changelog_of(kit)


def test_a_remember_that_was_lowered_holds_for_what_was_handled_before() -> None:
    kit = make_kit(remember=1000)
    kit.send(ride("a"))
    kit.stop()
    lowered = make_kit(kit.broker, remember=10)
    lowered.advance(10)
    assert len(lowered.send(ride("a"))) == 1


def test_much_that_expires_at_once_is_forgotten_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "_FORGOTTEN_AT_ONCE", 3)
    kit = make_kit(remember=60)
    kit.send(*(ride(f"ride-{number}") for number in range(10)))
    kit.sleep(60)
    left = []
    while kit.processor.gauges()["handled"]:
        kit.worker.step()
        left.append(kit.processor.gauges()["handled"])
    assert left == [7, 4, 1, 0]


def test_at_the_limit_the_oldest_are_forgotten_which_is_told() -> None:
    kit = make_kit(max_remembered=4)
    with capture_logs() as logs:
        for number in range(8):
            kit.send(ride(f"ride-{number}"))
            kit.sleep(2)
    assert any("forgotten before REMEMBER is over" in line["event"] for line in logs)
    assert kit.processor.gauges()["handled"] <= 4
    assert len(kit.send(ride("ride-0"))) == 1
    assert kit.watcher.metrics is not None
    [line] = [
        line
        for line in kit.watcher.metrics.render().decode().splitlines()
        if line.startswith("braidstream_forgotten_early_total")
    ]
    assert float(line.split()[1]) >= 4


def test_a_transaction_that_fails_leaves_nothing_handled() -> None:
    kit = make_kit()
    write(kit, ride("a"), ride("b"))
    aborted = KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True)
    kit.broker.fail_next("commit_transaction", aborted)
    kit.broker.fail_next("commit_transaction", aborted)
    kit.run()
    assert sorted(notified(kit)) == ["a", "b"]
    assert kit.send(ride("a"), ride("b")) == []


def test_nothing_is_read_before_it_is_known_what_was_handled() -> None:
    kit = make_kit()
    kit.send(ride("a"))
    kit.stop(crash=True)
    write(kit, ride("a"))
    kit.broker.ends.delay = 1000
    kit.start()
    waiting = kit.processor.waiting_for()
    assert waiting is not None
    assert waiting.startswith("restoring partitions [0, 1, 2, 3] of notified")
    assert {partition.number for partition in kit.processor.held()} == {0, 1, 2, 3}
    while kit.processor.waiting_for():
        kit.worker.step()
    kit.run()
    assert notified(kit) == ["a"]
    assert kit.broker.committed("kit")


def test_what_was_handled_moves_with_its_partition() -> None:
    first = make_kit()
    rides = [ride(f"ride-{number}") for number in range(20)]
    first.send(*rides)
    second = make_kit(first.broker)
    for kit in (first, second, first, second):
        kit.run()
    assert (len(first.inbox.owned), len(second.inbox.owned)) == (2, 2)
    write(first, *rides)
    for kit in (first, second, first, second):
        kit.run()
    assert sorted(notified(first)) == sorted(event.ride_id for event in rides)
    assert first.processor.gauges()["handled"] + second.processor.gauges()["handled"] == 20


def test_a_changelog_that_cannot_be_read_stops_the_worker() -> None:
    kit = make_kit()
    kit.stop()
    kit.broker.send("notified", key=b"a", value=b"not avro")
    with pytest.raises(Exception, match=r"notified \[\d\] offset 0: the state of a subject cannot be read"):
        kit.start()
