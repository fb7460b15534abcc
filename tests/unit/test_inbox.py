"""The inbox: batches of what a member owns, whatever happens to its partitions meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from braidstream.errors import FatalError, RetriableError, UnavailableError
from braidstream.streaming.inbox import Batch, Inbox
from braidstream.streaming.ports import Partition
from braidstream.testing.broker import FakeBroker
from braidstream.testing.clients import FakeConsumer

ALL = [Partition("events", number) for number in range(4)]


@pytest.fixture
def broker() -> FakeBroker:
    broker = FakeBroker()
    for partition in ALL:
        for number in range(3):
            broker.send("events", key=None, value=b"%d" % number, partition=partition.number)
    return broker


def make_inbox(broker: FakeBroker, **options: Any) -> Inbox:
    inbox = Inbox(broker.consumer("group", eager=options.get("eager", True)), ["events"], **{"eager": True, **options})
    inbox.subscribe(before_revoke=lambda: None)
    return inbox


def take(inbox: Inbox, limit: int = 100) -> Batch:
    return inbox.take(limit, wait=0, linger=0)


def values(batch: Batch) -> list[tuple[int | None, bytes | None]]:
    return [(record.partition(), record.value()) for record in batch.records]


def owned(inboxes: Sequence[Inbox]) -> list[Collection[Partition]]:
    return [set(inbox.owned) for inbox in inboxes]


def test_a_batch_says_what_came_before_its_records(broker: FakeBroker) -> None:
    inbox = make_inbox(broker)
    assert inbox.owned == set()
    first = take(inbox)
    assert (sorted(first.assigned), first.revoked) == (ALL, [])
    second = take(inbox)
    assert (second.assigned, second.revoked) == ([], [])
    assert len(second.records) == 12


def test_a_batch_is_no_larger_than_asked_for(broker: FakeBroker) -> None:
    inbox = make_inbox(broker)
    take(inbox)
    assert [len(take(inbox, limit).records) for limit in (1, 5, 100, 100)] == [1, 5, 6, 0]


@pytest.mark.parametrize("eager", [True, False])
def test_what_is_about_to_go_is_still_owned_when_it_is_told(broker: FakeBroker, eager: bool) -> None:
    consumer = broker.consumer("group", eager=eager)
    inbox = Inbox(consumer, ["events"], eager=eager)
    owned_then: list[set[Partition]] = []
    offsets = [TopicPartition("events", number, 3) for number in range(4)]

    def before_revoke() -> None:
        owned_then.append(set(inbox.owned))
        inbox.commit(offsets)

    inbox.subscribe(before_revoke)
    take(inbox)
    take(inbox)
    assert owned_then == []
    inbox.close()
    assert owned_then == [set(ALL)]
    assert set(broker.committed("group").values()) == {3}


@pytest.mark.parametrize("eager", [True, False])
def test_what_goes_while_a_batch_is_taken_is_not_in_it(broker: FakeBroker, eager: bool) -> None:
    """Also when it comes back at once: it is read again from the committed offset."""
    inbox = make_inbox(broker, eager=eager)
    take(inbox)
    others: list[Inbox] = []

    def join() -> None:
        others.append(make_inbox(broker, eager=eager))
        take(others[0])

    broker.run_before("consume", join, skip=1)
    read = values(take(inbox))
    [other] = others
    for _ in range(4):
        read += values(take(other)) + values(take(inbox))
    assert sorted(read) == [(partition, b"%d" % number) for partition in range(4) for number in range(3)]
    assert [len(found) for found in owned([inbox, other])] == [2, 2]


def test_revoked_comes_before_assigned(broker: FakeBroker) -> None:
    inbox = make_inbox(broker)
    take(inbox)
    other = make_inbox(broker)
    take(other)
    batch = take(inbox)
    assert sorted(batch.revoked) == ALL
    assert set(batch.assigned) == set(inbox.owned)
    assert len(inbox.owned) == 2


def test_new_partitions_can_be_held_back(broker: FakeBroker) -> None:
    inbox = make_inbox(broker, hold_new=True)
    take(inbox)
    assert take(inbox).records == []
    inbox.pause(ALL[1:])
    assert values(take(inbox)) == [(0, b"0"), (0, b"1"), (0, b"2")]
    inbox.pause([])
    assert len(take(inbox).records) == 9


def test_going_back_begins_at_the_committed_offset_or_the_beginning(broker: FakeBroker) -> None:
    broker.delete_records(ALL[1], before=1)
    inbox = make_inbox(broker)
    take(inbox)
    take(inbox)
    inbox.commit([TopicPartition("events", 0, 2)])
    inbox.go_back()
    assert dict(inbox.positions()) == dict(zip(ALL, [2, 1, 0, 0], strict=True))
    take(inbox)
    assert values(take(inbox))[:4] == [(0, b"2"), (1, b"1"), (1, b"2"), (2, b"0")]


def test_the_positions_count_control_records_and_the_offsets_do_not(broker: FakeBroker) -> None:
    producer = broker.producer("writer")
    producer.init_transactions(1)
    producer.begin_transaction()
    producer.produce("events", value=b"3", key=None, partition=0, on_delivery=None, headers=[])
    producer.commit_transaction()
    inbox = make_inbox(broker)
    take(inbox)
    take(inbox)
    take(inbox)
    assert inbox.positions()[ALL[0]] == 5
    assert [tp.offset for tp in inbox.next_offsets([ALL[0]])] == [4]


def test_the_lag_is_what_is_still_to_be_read(broker: FakeBroker) -> None:
    inbox = make_inbox(broker)
    take(inbox)
    assert [reading.lag for reading in inbox.readings().values()] == [3, 3, 3, 3]
    take(inbox, limit=5)
    assert sum(reading.lag for reading in inbox.readings().values()) == 7


def test_offsets_that_are_refused_can_be_tried_again(broker: FakeBroker) -> None:
    inbox = make_inbox(broker)
    take(inbox)
    broker.fail_next("commit", KafkaError(KafkaError.REBALANCE_IN_PROGRESS))
    with pytest.raises(RetriableError, match="the offsets were not committed"):
        inbox.commit(inbox.next_offsets(ALL))


def test_committed_offsets_that_cannot_be_had_stop_the_worker(broker: FakeBroker) -> None:
    """In the callback of the rebalance nothing may be raised: it comes after."""
    inbox = make_inbox(broker, patience=0.0)
    broker.fail_next("committed", KafkaError(KafkaError._TIMED_OUT))
    with pytest.raises(UnavailableError, match=r"the committed offsets of events cannot be had"):
        take(inbox)


def test_a_coordinator_that_has_moved_is_asked_again(broker: FakeBroker) -> None:
    slept: list[float] = []
    inbox = make_inbox(broker, patience=1.0, clock=lambda: sum(slept), sleep=slept.append)
    for _ in range(3):
        broker.fail_next("committed", KafkaError(KafkaError.NOT_COORDINATOR))
    take(inbox)
    assert set(inbox.owned) == set(ALL)
    assert len(slept) == 3


def test_a_lasting_error_is_not_asked_again(broker: FakeBroker) -> None:
    slept: list[float] = []
    inbox = make_inbox(broker, patience=1.0, clock=lambda: sum(slept), sleep=slept.append)
    broker.fail_next("committed", KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    with pytest.raises(UnavailableError):
        take(inbox)
    assert slept == []


@pytest.mark.parametrize("eager", [True, False])
def test_a_worker_that_is_to_end_waits_for_no_offsets(broker: FakeBroker, eager: bool) -> None:
    consumer = broker.consumer("group", eager=eager)
    inbox = Inbox(consumer, ["events"], eager=eager)
    inbox.subscribe(before_revoke=lambda: None)

    def told_to_end() -> None:
        inbox.leave_soon()
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    broker.run_before("committed", told_to_end)
    assert not take(inbox).records
    assert not inbox.owned
    inbox.close()


@pytest.mark.parametrize("eager", [True, False])
def test_partitions_that_are_lost_before_they_could_begin_are_given_back(broker: FakeBroker, eager: bool) -> None:
    """librdkafka hangs in `close` when it is refused what it asks back."""
    consumer = broker.consumer("group", eager=eager)
    inbox = Inbox(consumer, ["events"], eager=eager, patience=0.0)
    inbox.subscribe(before_revoke=lambda: None)

    def lose() -> None:
        broker.expire_member(consumer)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    broker.run_before("committed", lose)
    with pytest.raises(UnavailableError, match="cannot be had"):
        take(inbox)
    assert inbox.rebalances["lost"] == 1
    inbox.close()


def test_what_a_killed_member_was_about_to_commit_is_waited_for(broker: FakeBroker) -> None:
    killed = make_inbox(broker)
    metadata = take(killed).group
    producer = broker.producer("killed")
    producer.init_transactions(1)
    producer.begin_transaction()
    producer.send_offsets_to_transaction([TopicPartition("events", 0, 2)], metadata)
    inbox = make_inbox(broker)
    broker.run_before("committed", lambda: broker.expire_transaction("killed"))
    take(killed)
    take(inbox)
    assert len(inbox.owned) == 2


def test_closing_gives_everything_to_the_others(broker: FakeBroker) -> None:
    inboxes = [make_inbox(broker), make_inbox(broker)]
    for inbox in inboxes * 2:
        take(inbox)
    inboxes[0].close()
    take(inboxes[1])
    assert owned(inboxes) == [set(), set(ALL)]


class Outside:
    """A consumer whose client has noticed that its session has ended, before it could say so."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def memberid(self) -> str | None:
        return None


def test_records_taken_before_the_session_ended_are_not_handed_over(broker: FakeBroker) -> None:
    """Without a member's id the broker would fence nothing: these records are another member's by now."""
    outside: Any = Outside(broker.consumer("group", eager=True))
    inbox = Inbox(outside, ["events"], eager=True)
    inbox.subscribe(before_revoke=lambda: None)
    take(inbox)
    with pytest.raises(RetriableError, match="the session ended"):
        take(inbox)
    inbox.go_back()
    assert {offset.offset for offset in inbox.next_offsets(ALL)} == {0}


class Refused(Outside):
    """A consumer whose group takes no member with its settings."""

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        refusal = KafkaError(KafkaError.INVALID_SESSION_TIMEOUT, "JoinGroup failed: Broker: Invalid session timeout")
        return [Message(error=refusal)]


def test_a_session_timeout_that_the_broker_refuses_stops_the_worker(broker: FakeBroker) -> None:
    """The group would be asked again for ever."""
    inbox = Inbox(Refused(broker.consumer("group", eager=True)), ["events"], eager=True)
    inbox.subscribe(before_revoke=lambda: None)
    with pytest.raises(FatalError, match="Invalid session timeout"):
        take(inbox)


def test_a_member_is_assigned_when_the_group_has_answered_also_with_nothing(broker: FakeBroker) -> None:
    """A fifth member of a group of four partitions."""
    inboxes = [make_inbox(broker, eager=False) for _ in range(5)]
    assert {inbox.assigned for inbox in inboxes} == {False}
    for _ in range(10):
        for inbox in inboxes:
            take(inbox)
    assert {inbox.assigned for inbox in inboxes} == {True}
    assert sorted(len(inbox.owned) for inbox in inboxes) == [0, 1, 1, 1, 1]


def test_a_member_that_was_thrown_out_is_not_assigned_until_it_is_back(broker: FakeBroker) -> None:
    consumer = broker.consumer("group", eager=False)
    inbox = Inbox(consumer, ["events"], eager=False)
    told: list[bool] = []
    inbox.subscribe(before_revoke=lambda: None)
    take(inbox)
    broker.expire_member(consumer)
    broker.run_before("committed", lambda: told.append(inbox.assigned))
    take(inbox)
    assert (told, inbox.assigned) == ([False], True)
    assert inbox.rebalances == {"assigned": 2, "revoked": 0, "lost": 1}


def test_giving_everything_up_for_a_rebalance_is_no_answer(broker: FakeBroker) -> None:
    first = make_inbox(broker)
    take(first)
    second = make_inbox(broker)
    take(first)
    assert (first.assigned, second.assigned) == (False, False)
    take(second)
    take(first)
    assert (first.assigned, second.assigned) == (True, True)
    assert first.rebalances == {"assigned": 2, "revoked": 1, "lost": 0}


class Silent(FakeConsumer):
    """Is never called back: as a member of a group of the new protocol that is given nothing."""

    def subscribe(self, topics: list[str], **_: Any) -> None:
        super().subscribe(topics, on_assign=_nothing, on_revoke=_nothing, on_lost=_nothing)


def _nothing(_: Any, partitions: list[TopicPartition]) -> None:
    """Hear nothing."""


def test_a_silent_group_has_answered_when_its_metadata_changes(broker: FakeBroker) -> None:
    inbox = Inbox(Silent(broker, "group", eager=False), ["events"], eager=False, silent=True)
    inbox.subscribe(before_revoke=lambda: None)
    assert not inbox.assigned
    take(inbox)
    assert inbox.assigned


def test_a_reading_says_how_far_a_partition_is_read_and_whether_it_is_paused(broker: FakeBroker) -> None:
    inbox = make_inbox(broker)
    take(inbox)
    inbox.pause([ALL[1]])
    take(inbox)
    readings = inbox.readings()
    assert [(readings[at].position, readings[at].end, readings[at].paused) for at in ALL[:2]] == [
        (3, 3, False),
        (0, 3, True),
    ]
