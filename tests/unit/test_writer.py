"""Publishing events, to librdkafka's own in-process broker."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from braidstream.avro import Codec, LocalSchemas
from braidstream.column_writer import Column
from braidstream.embedded import PARTITIONS, EmbeddedBroker, appear, properties_at
from braidstream.errors import FatalError
from braidstream.logs import client_logger
from braidstream.settings import Settings
from braidstream.streaming.clients import plain_producer
from braidstream.writer import EventWriter, open_writer
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.unit.events import ride

TOPIC = RIDES.subjects.name
TYPE = RIDES.subjects.event_type
CODEC = Codec(TYPE, LocalSchemas(TYPE), TOPIC)
PATIENCE = 30.0


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as opened:
        appear(Producer({"bootstrap.servers": opened.bootstrap_servers}), [TOPIC])
        yield opened


def settings(broker: EmbeddedBroker, **kafka: str) -> Settings:
    properties = {**properties_at(broker.bootstrap_servers), **kafka}
    return Settings(kafka=properties, partitions=PARTITIONS, broker_timeout=PATIENCE)


def sent(broker: EmbeddedBroker, count: int) -> dict[bytes | None, RideStarted]:
    """The events on the topic by their keys, once there are so many."""
    consumer = Consumer({**properties_at(broker.bootstrap_servers), "group.id": "test"})
    consumer.assign([TopicPartition(TOPIC, number, 0) for number in range(PARTITIONS)])
    messages = [consumer.consume(1, PATIENCE) for _ in range(count)]
    assert consumer.consume(1, 0.1) == []
    consumer.close()
    return {message.key(): CODEC.decode(message.value()) for (message,) in messages}


def records(rides: Sequence[RideStarted]) -> tuple[list[bytes], list[bytes]]:
    return [ride.ride_id.encode() for ride in rides], [CODEC.encode(ride) for ride in rides]


def test_one_by_one_and_many_arrive_alike(broker: EmbeddedBroker) -> None:
    rides = [ride(f"ride-{number}", pickup_zone=number) for number in range(1, 7)]
    with open_writer(RIDES.subjects, settings(broker)) as writer:
        writer.send(rides[0])
        writer.send_many(*records(rides[1:]))
        writer.send_many([], [])
    assert writer.acknowledged == 6
    assert sent(broker, 6) == {ride.ride_id.encode(): ride for ride in rides}


def test_columns_are_encoded_as_events_are(broker: EmbeddedBroker) -> None:
    rides = [ride("ö", trip_distance=None), ride("b", passenger_count=None)]
    columns: dict[str, Column] = {
        "ride_id": ["ö", "b"],
        "pickup_at": np.array([each.pickup_at for each in rides], "datetime64[ms]"),
        "pickup_zone": np.array([74, 74]),
        "dropoff_zone": np.array([75, 75]),
        "trip_distance": np.array([np.nan, 2.5]),
        "passenger_count": np.array([1.0, np.nan]),
    }
    assert open_writer(RIDES.subjects, settings(broker)).encode(columns, 2) == records(rides)


def test_only_flat_schemas_are_written_from_columns(broker: EmbeddedBroker) -> None:
    appear(Producer({"bootstrap.servers": broker.bootstrap_servers}), [RIDES.decisions.name])
    with pytest.raises(TypeError, match="reasons cannot be written from a column"):
        open_writer(RIDES.decisions, settings(broker)).encode({"subject_id": []}, 0)


def test_what_is_not_acknowledged_is_a_failure_and_not_counted(broker: EmbeddedBroker) -> None:
    producer: Any = plain_producer(settings(broker), "test")
    writer = EventWriter(RIDES.subjects, TOPIC, CODEC, producer, PATIENCE, identify=str)
    writer.send(ride("a"))
    writer.flush()
    broker.__exit__()
    writer.send_many(*records([ride("b"), ride("c")]))
    assert writer.acknowledged == 1
    producer.purge()
    with pytest.raises(FatalError, match=r"an event was not acknowledged: ride_started .*, key b'[bc]': "):
        writer.flush()
    assert writer.acknowledged == 1
    with pytest.raises(FatalError, match="an event was not acknowledged"):
        writer.send(ride("d"))


def test_a_full_queue_is_waited_for(broker: EmbeddedBroker) -> None:
    with open_writer(RIDES.subjects, settings(broker, **{"queue.buffering.max.messages": "10"})) as writer:
        writer.send_many(*records([ride(f"ride-{number}") for number in range(50)]))
    assert writer.acknowledged == 50


def test_a_record_that_the_client_refuses_is_named(broker: EmbeddedBroker) -> None:
    writer = open_writer(RIDES.subjects, settings(broker, **{"message.max.bytes": "1000"}))
    with pytest.raises(FatalError, match="ride_started, key b'big': "):
        writer.send_many([b"big"], [bytes(2000)])
    assert writer.acknowledged == 0


def test_a_slow_broker_is_waited_for_as_long_as_it_acknowledges_something() -> None:
    one_at_a_time = {"batch.num.messages": "1", "max.in.flight.requests.per.connection": "1"}
    slow = {"test.mock.num.brokers": "1", "test.mock.broker.rtt": "50"}
    producer = Producer({**slow, **one_at_a_time}, logger=client_logger())
    producer.produce(TOPIC, b"", b"same")
    assert producer.flush(PATIENCE) == 0
    writer = EventWriter(RIDES.subjects, TOPIC, CODEC, producer, 0.5, identify=str)
    writer.send_many([b"same"] * 20, [b""] * 20)
    began = time.monotonic()
    writer.flush()
    assert writer.acknowledged == 20
    assert time.monotonic() - began > 0.5
