"""Transactions: offsets, fencing, and in which state which call is allowed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from braidstream.streaming.ports import Consumer, Producer
from tests.contract.brokers import Broker, take
from tests.contract.test_log import QUIET, reading, transact, transactional, values, write


def failure(call: Callable[[], object]) -> KafkaError:
    with pytest.raises(KafkaException) as raised:
        call()
    error: KafkaError = raised.value.args[0]
    return error


def committed(consumer: Consumer, topic: str) -> int:
    return int(consumer.committed([TopicPartition(topic, 0)], timeout=10)[0].offset)


def send(producer: Producer, topic: str, offset: int, metadata: object) -> None:
    producer.send_offsets_to_transaction([TopicPartition(topic, 0, offset)], metadata)


def test_offsets_are_committed_with_the_transaction_or_not_at_all(broker: Broker) -> None:
    topic = broker.topic("offsets")
    consumer = broker.consumer("offsets", eager=True)
    assert committed(consumer, topic) == OFFSET_INVALID
    producer = transactional(broker)
    producer.begin_transaction()
    send(producer, topic, 7, consumer.consumer_group_metadata())
    producer.abort_transaction()
    assert committed(consumer, topic) == OFFSET_INVALID
    producer.begin_transaction()
    send(producer, topic, 8, consumer.consumer_group_metadata())
    producer.commit_transaction()
    assert committed(consumer, topic) == 8


def test_committed_offsets_are_not_told_while_a_transaction_is_about_to_change_them(broker: Broker) -> None:
    topic = broker.topic("pending")
    consumer = broker.consumer("pending", eager=True)
    producer = transactional(broker)
    producer.begin_transaction()
    send(producer, topic, 7, consumer.consumer_group_metadata())
    error = failure(lambda: consumer.committed([TopicPartition(topic, 0)], timeout=1))
    assert error.code() == KafkaError._TIMED_OUT
    producer.commit_transaction()
    assert committed(consumer, topic) == 7


def test_a_new_producer_ends_what_its_predecessor_left_open(broker: Broker) -> None:
    topic = broker.topic("takeover")
    consumer = reading(broker, topic, 0)
    first = transactional(broker)
    first.begin_transaction()
    write(first, topic, "never seen")
    send(first, topic, 5, consumer.consumer_group_metadata())
    second = transactional(broker)
    transact(second, topic, "seen")
    assert values(take(consumer, 1)) == ["seen"]
    assert committed(consumer, topic) == OFFSET_INVALID


def test_a_fenced_producer_is_of_no_more_use(broker: Broker) -> None:
    topic = broker.topic("fenced")
    consumer = reading(broker, topic, 0)
    metadata = consumer.consumer_group_metadata()
    fenced = transactional(broker)
    fenced.begin_transaction()
    transactional(broker)
    fenced.produce(topic, value=b"never seen", key=None, partition=0, on_delivery=None, headers=[])
    for call in (
        lambda: fenced.flush(10),
        lambda: send(fenced, topic, 1, metadata),
        fenced.commit_transaction,
        fenced.abort_transaction,
        fenced.begin_transaction,
    ):
        error = failure(call)
        assert (error.code(), error.fatal()) == (KafkaError._FENCED, True)
    # Only `produce` does not say why.
    error = failure(lambda: write(fenced, topic, "never seen"))
    assert (error.code(), error.fatal()) == (KafkaError._FATAL, False)
    assert take(consumer, 1, attempts=QUIET) == []


def test_what_the_broker_refuses_is_told_by_the_calls_of_the_transaction(broker: Broker) -> None:
    topic = broker.topic("refused")
    metadata = broker.consumer("refused", eager=True).consumer_group_metadata()
    producer = transactional(broker)
    producer.begin_transaction()
    producer.produce(topic, value=Random(0).randbytes(1_090_000), key=None, partition=0, on_delivery=None, headers=[])
    assert producer.flush(10) == 0
    for call in (lambda: send(producer, topic, 1, metadata), producer.commit_transaction):
        error = failure(call)
        assert (error.code(), error.txn_requires_abort()) == (KafkaError.MSG_SIZE_TOO_LARGE, True)
    assert failure(lambda: write(producer, topic, "a")).code() == KafkaError._STATE
    producer.abort_transaction()


def test_a_producer_may_learn_only_at_the_commit_that_it_is_fenced(broker: Broker) -> None:
    topic = broker.topic("fenced")
    fenced = transactional(broker)
    fenced.begin_transaction()
    write(fenced, topic, "never seen")
    transactional(broker)
    error = failure(fenced.commit_transaction)
    assert (error.code(), error.fatal()) == (KafkaError._FENCED, True)


def test_producers_with_different_ids_do_not_fence_each_other(broker: Broker) -> None:
    topic = broker.topic("ids")
    one, other = transactional(broker, "one"), transactional(broker, "other")
    one.begin_transaction()
    transact(other, topic, "b")
    write(one, topic, "a")
    one.commit_transaction()
    assert values(take(reading(broker, topic, 0), 2)) == ["b", "a"]


def test_calls_out_of_order_are_refused(broker: Broker) -> None:
    topic = broker.topic("states")
    producer = transactional(broker)
    for call in (
        producer.commit_transaction,
        producer.abort_transaction,
        lambda: send(producer, topic, 1, broker.consumer("states", eager=True).consumer_group_metadata()),
        lambda: write(producer, topic, "outside of a transaction"),
    ):
        assert failure(call).code() == KafkaError._STATE
    producer.begin_transaction()
    assert failure(producer.begin_transaction).code() == KafkaError._STATE
    producer.abort_transaction()


def test_a_transaction_without_records_or_offsets_can_be_committed(broker: Broker) -> None:
    producer = transactional(broker)
    producer.begin_transaction()
    producer.commit_transaction()
    transact(producer, broker.topic("after"), "a")
