"""Groups: who gets what, in which order the callbacks run, and which members may commit."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from braidstream.streaming.ports import Consumer
from tests.contract.brokers import Broker, take, turn_until
from tests.contract.test_log import transactional, values, write
from tests.contract.test_transactions import committed, failure, send


class Member:
    """A consumer that takes what it is given, and notes it."""

    def __init__(self, broker: Broker, topics: list[str], *, eager: bool) -> None:
        self.consumer: Consumer = broker.consumer("group", eager=eager)
        self.owned: set[tuple[str, int]] = set()
        self.events: list[str] = []
        self._eager = eager
        self.consumer.subscribe(topics, on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke)

    @property
    def numbers(self) -> set[int]:
        return {number for _, number in self.owned}

    def consume(self, num_messages: int, timeout: float) -> list[Any]:
        return self.consumer.consume(num_messages, timeout)

    def _assign(self, _: Any, partitions: list[TopicPartition]) -> None:
        self.events.append(f"assign {len(partitions)}")
        self.owned |= {(tp.topic, tp.partition) for tp in partitions}
        starts = [TopicPartition(tp.topic, tp.partition, 0) for tp in partitions]
        if self._eager:
            self.consumer.assign(starts)
        else:
            self.consumer.incremental_assign(starts)

    def _revoke(self, _: Any, partitions: list[TopicPartition]) -> None:
        self.events.append(f"revoke {len(partitions)}")
        self.owned -= {(tp.topic, tp.partition) for tp in partitions}
        if self._eager:
            self.consumer.unassign()
        else:
            self.consumer.incremental_unassign(partitions)


@pytest.fixture(params=[True, False], ids=["eager", "cooperative"])
def eager(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_lone_member_gets_everything_while_it_consumes(broker: Broker, eager: bool) -> None:
    topic = broker.topic("events")
    write(broker.producer(), topic, "a")
    member = Member(broker, [topic], eager=eager)
    assert member.events == []
    assert values(take(member, 1)) == ["a"]
    assert member.numbers == {0, 1, 2, 3}


def test_two_members_share_and_nothing_is_owned_twice(broker: Broker, eager: bool) -> None:
    topic = broker.topic("events")
    first = Member(broker, [topic], eager=eager)
    turn_until(lambda: len(first.owned) == 4, first)
    second = Member(broker, [topic], eager=eager)

    def shared() -> bool:
        assert not first.owned & second.owned
        return len(first.owned) == len(second.owned) == 2

    turn_until(shared, first, second)
    assert first.numbers | second.numbers == {0, 1, 2, 3}


def test_an_eager_member_gives_up_everything_first(broker: Broker) -> None:
    topic = broker.topic("events")
    first = Member(broker, [topic], eager=True)
    turn_until(lambda: len(first.owned) == 4, first)
    second = Member(broker, [topic], eager=True)
    turn_until(lambda: len(first.owned) == len(second.owned) == 2, first, second)
    assert first.events == ["assign 4", "revoke 4", "assign 2"]


def test_a_cooperative_member_keeps_what_stays(broker: Broker) -> None:
    topic = broker.topic("events")
    first = Member(broker, [topic], eager=False)
    turn_until(lambda: len(first.owned) == 4, first)
    second = Member(broker, [topic], eager=False)
    turn_until(lambda: len(first.owned) == len(second.owned) == 2, first, second)
    assert [event for event in first.events if event != "assign 0"] == ["assign 4", "revoke 2"]


def test_range_gives_the_same_numbers_of_every_topic(broker: Broker) -> None:
    topics = [broker.topic("events"), broker.topic("answers")]
    members = [Member(broker, topics, eager=True) for _ in range(2)]
    turn_until(lambda: all(len(member.owned) == 4 for member in members), *members)
    for member in members:
        assert member.owned == {(topic, number) for topic in topics for number in member.numbers}
    assert {frozenset(member.numbers) for member in members} == {frozenset({0, 1}), frozenset({2, 3})}


def test_a_member_that_closes_gives_back_and_the_other_takes_over(broker: Broker, eager: bool) -> None:
    topic = broker.topic("events")
    first, second = Member(broker, [topic], eager=eager), Member(broker, [topic], eager=eager)
    turn_until(lambda: len(first.owned) == len(second.owned) == 2, first, second)
    second.consumer.close()
    assert (second.events[-1], second.owned) == ("revoke 2", set())
    turn_until(lambda: len(first.owned) == 4, first)


def test_a_transaction_with_stale_metadata_must_be_aborted(broker: Broker, eager: bool) -> None:
    topic = broker.topic("events")
    first = Member(broker, [topic], eager=eager)
    turn_until(lambda: len(first.owned) == 4, first)
    stale = first.consumer.consumer_group_metadata()
    second = Member(broker, [topic], eager=eager)
    turn_until(lambda: len(first.owned) == len(second.owned) == 2, first, second)
    producer = transactional(broker)
    producer.begin_transaction()
    for call in (lambda: send(producer, topic, 9, stale), producer.commit_transaction, producer.begin_transaction):
        error = failure(call)
        assert error.code() == KafkaError.ILLEGAL_GENERATION
        assert error.txn_requires_abort()
        assert not error.fatal()
    assert failure(lambda: write(producer, topic, "a")).code() == KafkaError._STATE
    producer.abort_transaction()
    first.consume(1, 0.1)
    producer.begin_transaction()
    send(producer, topic, 5, first.consumer.consumer_group_metadata())
    producer.commit_transaction()
    assert committed(first.consumer, topic) == 5


def test_stale_metadata_is_accepted_with_no_offsets(broker: Broker) -> None:
    topic = broker.topic("events")
    first = Member(broker, [topic], eager=True)
    turn_until(lambda: len(first.owned) == 4, first)
    stale = first.consumer.consumer_group_metadata()
    second = Member(broker, [topic], eager=True)
    turn_until(lambda: len(first.owned) == len(second.owned) == 2, first, second)
    producer = transactional(broker)
    producer.begin_transaction()
    producer.send_offsets_to_transaction([], stale)
    producer.commit_transaction()


def test_the_metadata_of_a_consumer_that_is_no_member_is_not_checked(broker: Broker) -> None:
    topic = broker.topic("events")
    member = Member(broker, [topic], eager=True)
    turn_until(lambda: len(member.owned) == 4, member)
    producer = transactional(broker)
    producer.begin_transaction()
    send(producer, topic, 3, broker.consumer("group", eager=True).consumer_group_metadata())
    producer.commit_transaction()
    assert committed(member.consumer, topic) == 3


def test_a_consumer_that_is_no_member_commits_only_where_there_are_none(broker: Broker) -> None:
    topic = broker.topic("events")
    outside = broker.consumer("group", eager=True)
    outside.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
    member = Member(broker, [topic], eager=True)
    turn_until(lambda: len(member.owned) == 4, member)
    refused = failure(lambda: outside.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False))
    assert refused.code() == KafkaError.UNKNOWN_MEMBER_ID
    assert committed(member.consumer, topic) == 1


def test_the_metadata_of_a_member_that_left_is_refused(broker: Broker) -> None:
    topic = broker.topic("events")
    member = Member(broker, [topic], eager=True)
    turn_until(lambda: len(member.owned) == 4, member)
    gone = member.consumer.consumer_group_metadata()
    member.consumer.close()
    producer = transactional(broker)
    producer.begin_transaction()
    error = failure(lambda: send(producer, topic, 9, gone))
    assert error.code() == KafkaError.UNKNOWN_MEMBER_ID
    assert error.txn_requires_abort()


def test_a_member_commits_without_a_transaction(broker: Broker, eager: bool) -> None:
    topic = broker.topic("events")
    member = Member(broker, [topic], eager=eager)
    turn_until(lambda: len(member.owned) == 4, member)
    member.consumer.commit(offsets=[TopicPartition(topic, 0, 4)], asynchronous=False)
    assert committed(member.consumer, topic) == 4
