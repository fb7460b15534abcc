"""What readers see of records and transactions."""

from __future__ import annotations

import os

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, KafkaError, KafkaException, Message, TopicPartition

from braidstream.streaming.changelog import ChangelogReader
from braidstream.streaming.partitioning import partition_of_key
from braidstream.streaming.ports import Consumer, Partition, Producer
from tests.contract.brokers import Broker, take, turn_until

QUIET = 8
"""Attempts after which nothing more is expected to come."""


def write(producer: Producer, topic: str, *values: str, partition: int = 0) -> None:
    for value in values:
        producer.produce(topic, value=value.encode(), key=None, partition=partition, on_delivery=None, headers=[])
    assert producer.flush(10) == 0


def transact(producer: Producer, topic: str, *values: str, partition: int = 0, commit: bool = True) -> None:
    producer.begin_transaction()
    write(producer, topic, *values, partition=partition)
    if commit:
        producer.commit_transaction()
    else:
        producer.abort_transaction()


def transactional(broker: Broker, name: str = "writer") -> Producer:
    producer = broker.producer(name)
    producer.init_transactions(30)
    return producer


def position(reader: ChangelogReader | Consumer, topic: str, partition: int = 0) -> int:
    return int(reader.position([TopicPartition(topic, partition)])[0].offset)


def reading(broker: Broker, topic: str, offset: int, partition: int = 0) -> Consumer:
    consumer = broker.consumer("reading", eager=True)
    consumer.assign([TopicPartition(topic, partition, offset)])
    return consumer


def values(messages: list[Message]) -> list[str]:
    return [(message.value() or b"").decode() for message in messages]


def test_a_record_comes_as_it_was_written(broker: Broker) -> None:
    topic = broker.topic("records")
    producer = broker.producer()
    headers: list[tuple[str, bytes | None]] = [("trace", b"\x00\x01"), ("trace", b"again")]
    producer.produce(topic, value=b"value", key=b"key", partition=2, on_delivery=None, headers=headers)
    producer.produce(topic, value=None, key=None, partition=2, on_delivery=None, headers=[])
    producer.flush(10)
    full, empty = take(reading(broker, topic, 0, partition=2), 2)
    assert (full.topic(), full.partition(), full.offset()) == (topic, 2, 0)
    assert (full.key(), full.value(), full.headers(), full.error()) == (b"key", b"value", headers, None)
    assert (empty.key(), empty.value(), empty.headers(), empty.offset()) == (None, None, None, 1)


def test_keys_are_partitioned_as_javas_clients_do(broker: Broker) -> None:
    topic = broker.topic("keys")
    producer = broker.producer()
    # The murmur2 hashes of Kafka's own test, org.apache.kafka.common.utils.UtilsTest.
    hashes = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    for key in hashes:
        producer.produce(topic, value=None, key=key, partition=-1, on_delivery=None, headers=None)
    assert producer.flush(10) == 0
    consumer = broker.consumer("keys", eager=True)
    consumer.assign([TopicPartition(topic, number, 0) for number in range(4)])
    went = {message.key(): message.partition() for message in take(consumer, len(hashes))}
    assert went == {key: (value & 0x7FFFFFFF) % 4 for key, value in hashes.items()}
    assert went == {key: partition_of_key(key, 4) for key in hashes}
    assert [partition_of_key(key, 2**31) for key in hashes] == [value & 0x7FFFFFFF for value in hashes.values()]


def test_only_what_is_not_delivered_is_reported_by_poll_or_flush(broker: Broker) -> None:
    topic = broker.topic("deliveries")
    producer = broker.producer()
    reports: list[tuple[int, str | None, int | None]] = []

    def note(error: KafkaError, message: Message) -> None:
        reports.append((error.code(), message.topic(), message.partition()))

    for value in (b"x", os.urandom(2_000_000), b"y"):
        producer.produce(topic, value=value, key=None, partition=1, on_delivery=note, headers=None)
    assert reports == []
    assert producer.flush(10) == 0
    assert reports == [(KafkaError.MSG_SIZE_TOO_LARGE, topic, 1)]


def test_the_position_is_not_defined_before_something_is_read(broker: Broker) -> None:
    topic = broker.topic("positions")
    write(broker.producer(), topic, "a", "b")
    consumer = broker.consumer("positions", eager=True)
    assert position(consumer, topic) == OFFSET_INVALID
    consumer.assign([TopicPartition(topic, 0, 0)])
    assert position(consumer, topic) == OFFSET_INVALID
    take(consumer, 2)
    assert position(consumer, topic) == 2
    consumer.seek(TopicPartition(topic, 0, 1))
    assert position(consumer, topic) == OFFSET_INVALID
    assert values(take(consumer, 1)) == ["b"]
    assert position(consumer, topic) == 2


def test_control_records_take_offsets_and_move_the_position(broker: Broker) -> None:
    topic = broker.topic("control")
    producer = transactional(broker)
    transact(producer, topic, "a", "b")
    transact(producer, topic, "c")
    consumer = reading(broker, topic, 0)
    records = take(consumer, 3)
    assert [record.offset() for record in records] == [0, 1, 3]
    turn_until(lambda: position(consumer, topic) == 5, consumer)


@pytest.mark.parametrize("commit", [True, False])
def test_the_position_passes_a_control_record_when_nothing_was_delivered(broker: Broker, commit: bool) -> None:
    topic = broker.topic("control")
    transact(transactional(broker), topic, "a", commit=commit)
    consumer = reading(broker, topic, 1)
    assert turn_until(lambda: position(consumer, topic) == 2, consumer) == []


def test_aborted_records_are_never_seen(broker: Broker) -> None:
    topic = broker.topic("aborted")
    producer = transactional(broker)
    transact(producer, topic, "a")
    transact(producer, topic, "gone", commit=False)
    transact(producer, topic, "b")
    reader = broker.reader()
    reader.incremental_assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    assert values(take(reader, 2)) == ["a", "b"]
    turn_until(lambda: position(reader, topic) == 6, reader)


def test_an_open_transaction_holds_readers_back(broker: Broker) -> None:
    topic = broker.topic("open")
    producer = transactional(broker)
    producer.begin_transaction()
    write(producer, topic, "a")
    write(broker.producer(), topic, "outside")
    consumer = reading(broker, topic, 0)
    assert take(consumer, 1, attempts=QUIET) == []
    producer.commit_transaction()
    assert values(take(consumer, 2)) == ["a", "outside"]


def test_ends_count_what_is_not_committed_and_watermarks_do_not(broker: Broker) -> None:
    topic = broker.topic("ends")
    producer = transactional(broker)
    transact(producer, topic, "a")
    producer.begin_transaction()
    write(producer, topic, "b")
    answer = broker.ends.ask([Partition(topic, 0), Partition(topic, 1)])
    consumer = reading(broker, topic, 0)
    turn_until(lambda: answer() is not None, consumer)
    assert answer() == {Partition(topic, 0): 3, Partition(topic, 1): 0}
    assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10, cached=False) == (0, 2)
    turn_until(lambda: position(consumer, topic) == 2, consumer)
    assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10, cached=True)[1] == 3
    unread = consumer.get_watermark_offsets(TopicPartition(topic, 1), timeout=0, cached=True)
    assert unread == (OFFSET_INVALID, OFFSET_INVALID)
    producer.abort_transaction()


def test_a_paused_partition_keeps_its_place(broker: Broker) -> None:
    topic = broker.topic("paused")
    write(broker.producer(), topic, "a", "b")
    consumer = reading(broker, topic, 0)
    take(consumer, 1)
    consumer.pause([TopicPartition(topic, 0)])
    assert take(consumer, 1, attempts=QUIET) == []
    assert position(consumer, topic) == 1
    consumer.resume([TopicPartition(topic, 0)])
    assert values(take(consumer, 1)) == ["b"]


def test_a_pause_ends_with_the_assignment(broker: Broker) -> None:
    topic = broker.topic("paused")
    write(broker.producer(), topic, "a")
    consumer = reading(broker, topic, 0)
    consumer.pause([TopicPartition(topic, 0)])
    consumer.unassign()
    consumer.assign([TopicPartition(topic, 0, 0)])
    assert values(take(consumer, 1)) == ["a"]


def test_what_is_unassigned_alone_is_paused_no_more(broker: Broker) -> None:
    topic = broker.topic("paused")
    write(broker.producer(), topic, "a")
    consumer = broker.consumer("paused", eager=False)
    consumer.incremental_assign([TopicPartition(topic, 0, 0), TopicPartition(topic, 1, 0)])
    consumer.pause([TopicPartition(topic, 0)])
    consumer.incremental_unassign([TopicPartition(topic, 0)])
    consumer.incremental_assign([TopicPartition(topic, 0, 0)])
    assert values(take(consumer, 1)) == ["a"]


def test_only_what_is_assigned_can_be_sought(broker: Broker) -> None:
    topic = broker.topic("seek")
    consumer = reading(broker, topic, 0)
    with pytest.raises(KafkaException) as raised:
        consumer.seek(TopicPartition(topic, 1, 0))
    assert raised.value.args[0].code() == KafkaError._STATE


def test_a_lost_offset_is_an_error_of_its_partition(broker: Broker) -> None:
    topic = broker.topic("lost")
    write(broker.producer(), topic, "a", "b", "c", partition=3)
    broker.delete_records(Partition(topic, 3), 2)
    consumer = reading(broker, topic, 1, partition=3)
    (message,) = take(consumer, 1)
    error = message.error()
    assert error is not None
    assert (error.code(), error.retriable(), error.fatal()) == (KafkaError._AUTO_OFFSET_RESET, False, False)
    assert (message.topic(), message.partition()) == (topic, 3)
    assert consumer.get_watermark_offsets(TopicPartition(topic, 3), timeout=10, cached=False) == (2, 3)


def test_a_reader_goes_on_at_the_beginning_when_its_offset_is_lost(broker: Broker) -> None:
    topic = broker.topic("lost")
    write(broker.producer(), topic, "a", "b", "c")
    broker.delete_records(Partition(topic, 0), 2)
    reader = broker.reader()
    reader.incremental_assign([TopicPartition(topic, 0, 0)])
    assert values(take(reader, 1)) == ["c"]


def test_a_closed_consumer_refuses_calls_but_not_a_second_close(broker: Broker) -> None:
    consumer = reading(broker, broker.topic("closed"), 0)
    consumer.close()
    consumer.close()
    with pytest.raises(RuntimeError, match="closed"):
        consumer.consume(1, 0.1)
    with pytest.raises(RuntimeError, match="closed"):
        consumer.consumer_group_metadata()
