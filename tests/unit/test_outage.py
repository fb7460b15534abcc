"""An outage: told by librdkafka, over when a broker answers, and fatal when it lasts."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from braidstream.errors import UnavailableError
from braidstream.streaming.outage import Outage

ALL_DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN)


class Broker:
    """Answers or not, and counts how often it is asked."""

    def __init__(self) -> None:
        self.now = 100.0
        self.is_up = False
        self.asked = 0
        self.outage = Outage(self._answers, "kafka:9092", limit=60, clock=lambda: self.now)

    def _answers(self) -> bool:
        self.asked += 1
        return self.is_up


@pytest.fixture
def broker() -> Broker:
    return Broker()


def test_nothing_is_asked_while_nothing_was_heard(broker: Broker) -> None:
    broker.now += 1000
    broker.outage.check(0)
    assert broker.asked == 0


def test_an_outage_that_lasts_stops_the_worker(broker: Broker) -> None:
    broker.outage.heard(ALL_DOWN)
    for _ in range(59):
        broker.now += 1
        broker.outage.check(0)
    broker.now += 1
    with pytest.raises(UnavailableError, match=r"no broker at kafka:9092 has answered for 60 s \(BROKER_TIMEOUT\)"):
        broker.outage.check(0)
    assert 10 <= broker.asked <= 12


def test_an_outage_ends_when_a_broker_answers(broker: Broker) -> None:
    broker.outage.heard(ALL_DOWN)
    broker.now += 59
    broker.is_up = True
    broker.outage.check(0)
    broker.is_up = False
    broker.now += 59
    broker.outage.check(0)
    assert broker.asked == 1


def test_records_are_an_answer(broker: Broker) -> None:
    broker.outage.heard(ALL_DOWN)
    broker.now += 61
    broker.outage.check(1)
    assert broker.asked == 0


def test_it_counts_from_the_first_time_it_was_heard(broker: Broker) -> None:
    broker.outage.heard(ALL_DOWN)
    broker.now += 59
    broker.outage.heard(ALL_DOWN)
    broker.now += 1
    with pytest.raises(UnavailableError):
        broker.outage.check(0)


def test_only_the_loss_of_every_broker_is_an_outage(broker: Broker) -> None:
    with capture_logs() as captured:
        broker.outage.heard(KafkaError(KafkaError._TRANSPORT))
        broker.outage.heard(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
    assert [(entry["event"], entry["detail"]) for entry in captured] == [("kafka", "wrong password")]
    broker.now += 61
    broker.outage.check(0)
