"""The fence: a partition is proven read up to the moment of asking once the end of that moment is passed."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from braidstream.errors import RetriableError
from braidstream.streaming.fence import Fence
from braidstream.streaming.ports import Partition
from braidstream.testing.broker import FakeBroker

A, B = Partition("predictions", 0), Partition("predictions", 1)


@pytest.fixture
def broker() -> FakeBroker:
    broker = FakeBroker()
    for _ in range(5):
        broker.send("predictions", key=None, value=b"", partition=0)
    return broker


def test_nothing_is_proven_before_it_is_asked(broker: FakeBroker) -> None:
    fence = Fence(broker.ends)
    fence.update({A: 5})
    assert fence.proven(A) == 0
    assert not fence.busy


def test_a_partition_is_proven_when_its_end_was_passed(broker: FakeBroker) -> None:
    fence = Fence(broker.ends)
    fence.ask([A], now=100)
    fence.update({A: 4})
    assert (fence.proven(A), fence.busy) == (0, True)
    fence.update({A: 5})
    assert (fence.proven(A), fence.busy) == (100, False)


def test_an_empty_partition_is_proven_at_once(broker: FakeBroker) -> None:
    fence = Fence(broker.ends)
    fence.ask([B], now=100)
    fence.update({B: 0})
    assert fence.proven(B) == 100


def test_a_partition_whose_position_is_not_known_is_not_proven(broker: FakeBroker) -> None:
    fence = Fence(broker.ends)
    fence.ask([B], now=100)
    fence.update({})
    assert (fence.proven(B), fence.busy) == (0, True)


def test_what_is_written_after_asking_need_not_be_read(broker: FakeBroker) -> None:
    broker.ends.delay = 1
    fence = Fence(broker.ends)
    fence.ask([A], now=100)
    broker.send("predictions", key=None, value=b"", partition=0)
    fence.update({A: 5})
    assert fence.proven(A) == 0
    fence.update({A: 5})
    assert fence.proven(A) == 100


def test_a_question_under_way_is_not_asked_again(broker: FakeBroker) -> None:
    broker.ends.delay = 1
    fence = Fence(broker.ends)
    fence.ask([A], now=100)
    fence.ask([A], now=200)
    fence.update({A: 0})
    fence.update({A: 0})
    fence.ask([A], now=300)
    fence.update({A: 5})
    assert fence.proven(A) == 100
    fence.ask([A], now=400)
    assert fence.proven(A) == 100


def test_partitions_are_proven_one_by_one(broker: FakeBroker) -> None:
    fence = Fence(broker.ends)
    fence.ask([A, B], now=100)
    fence.update({A: 4, B: 0})
    assert (fence.proven(A), fence.proven(B)) == (0, 100)


def test_a_broker_that_does_not_tell_is_asked_again(broker: FakeBroker) -> None:
    fence = Fence(broker.ends)
    fence.ask([A], now=100)
    broker.fail_next("ends", KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
    with pytest.raises(RetriableError, match="did not tell where the partitions end"):
        fence.update({A: 5})
    assert not fence.busy
    fence.ask([A], now=200)
    fence.update({A: 5})
    assert fence.proven(A) == 200


def test_what_went_away_is_forgotten(broker: FakeBroker) -> None:
    fence = Fence(broker.ends)
    fence.ask([A], now=100)
    fence.update({A: 5})
    fence.ask([A, B], now=200)
    fence.forget([A, B])
    assert (fence.proven(A), fence.busy) == (0, False)
    fence.update({A: 5, B: 0})
    assert fence.proven(B) == 0


def test_what_is_read_again_from_further_back_is_not_proven_by_an_old_question(broker: FakeBroker) -> None:
    fence = Fence(broker.ends)
    fence.ask([A], now=100)
    fence.update({A: 4})
    fence.forget([A])
    fence.update({A: 5})
    assert fence.proven(A) == 0
