"""The changelog: a state comes back as it was, and a partition is restored as far as its log goes."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from braidstream.avro import Codec, LocalSchemas
from braidstream.deciding.join import Outcome, State
from braidstream.deciding.policy import Evidence
from braidstream.errors import FatalError, PoisonRecord, RetriableError
from braidstream.streaming import changelog
from braidstream.streaming.changelog import Restore
from braidstream.streaming.ports import Partition, Producer
from braidstream.streaming.state_codecs import StateCodec
from braidstream.testing.broker import FakeBroker
from rides.pipeline import RIDES

TOPIC = "decision_state"
TYPE = RIDES.decision_state.event_type
CODEC = StateCodec(TYPE, LocalSchemas(TYPE), TOPIC)

milliseconds = st.integers(0, 253_402_300_799_999)
states = st.builds(
    State,
    event=st.none() | st.binary(),
    expected=st.lists(st.text()).map(tuple),
    evidence=st.lists(st.builds(Evidence, st.text(), st.text(), st.floats(allow_nan=False, allow_infinity=False))).map(
        tuple
    ),
    first_seen_at=milliseconds,
    expires_at=milliseconds,
    outcome=st.none() | st.builds(Outcome, st.integers(0, 2**31 - 1), st.text(), st.booleans()),
    traceparent=st.none() | st.text().map(str.encode),
)


@given(st.text(), states)
def test_a_state_comes_back_as_it_was(subject_id: str, state: State) -> None:
    assert CODEC.decode(CODEC.encode(subject_id, state)) == state


@given(st.text(), states)
def test_a_state_is_an_event_of_its_topic(subject_id: str, state: State) -> None:
    event = Codec(TYPE, LocalSchemas(TYPE), TOPIC).decode(CODEC.encode(subject_id, state))
    assert event.subject_id == subject_id
    assert event.event == state.event
    assert [evidence.model for evidence in event.evidence] == [evidence.model for evidence in state.evidence]
    assert round(event.expires_at.timestamp() * 1000) == state.expires_at


def test_states_share_what_is_the_same() -> None:
    state = state_of(1)
    first, second = (CODEC.decode(CODEC.encode("a", state)) for _ in range(2))
    assert first.expected is second.expected
    assert first.evidence[0].model is second.evidence[0].model


@pytest.mark.parametrize(
    "value", [b"", b"\x00\x00\x00\x00\x07", CODEC.encode("a", State(None, (), (), 0, 0, None))[:-1]]
)
def test_what_is_no_state_is_poison(value: bytes) -> None:
    with pytest.raises(PoisonRecord):
        CODEC.decode(value)


def state_of(number: int) -> State:
    return State(b"event", ("duration", "tip"), (Evidence("duration", "1", float(number)),), number, number + 30, None)


class Restoring:
    """A restore from a fake broker, and what it gave."""

    def __init__(self) -> None:
        self.broker = FakeBroker()
        self.given: list[tuple[int, str, State | None]] = []
        self.seconds = 0.0
        self.restore = Restore(
            TOPIC, self.broker.reader, self.broker.ends, CODEC.decode, self._take, clock=lambda: self.seconds
        )

    def write(self, partition: int, subject_id: str, state: State | None, producer: Producer | None = None) -> None:
        (producer or self.broker.producer()).produce(
            TOPIC,
            value=CODEC.encode(subject_id, state) if state is not None else None,
            key=subject_id.encode(),
            partition=partition,
            on_delivery=None,
            headers=[],
        )

    def transaction(self, name: str = "worker") -> Producer:
        producer = self.broker.producer(name)
        producer.init_transactions(1)
        producer.begin_transaction()
        return producer

    def steps(self, count: int) -> set[int]:
        return set().union(*(self.restore.step() for _ in range(count)))

    def _take(self, partition: int, subject_id: str, state: State | None) -> None:
        self.given.append((partition, subject_id, state))


@pytest.fixture
def restoring() -> Restoring:
    return Restoring()


def test_it_gives_every_record_in_order_tombstones_too(restoring: Restoring) -> None:
    restoring.write(1, "a", state_of(1))
    restoring.write(1, "a", state_of(2))
    restoring.write(1, "b", state_of(3))
    restoring.write(1, "b", None)
    restoring.write(2, "c", state_of(4))
    restoring.restore.start([1])
    assert restoring.restore.partitions == {1}
    assert restoring.steps(3) == {1}
    assert restoring.given == [(1, "a", state_of(1)), (1, "a", state_of(2)), (1, "b", state_of(3)), (1, "b", None)]
    assert restoring.restore.partitions == set()


def test_an_empty_partition_is_restored_at_once(restoring: Restoring) -> None:
    restoring.restore.start([0, 3])
    assert restoring.steps(2) == {0, 3}


def test_a_partition_emptied_by_retention_is_restored_at_once(restoring: Restoring) -> None:
    for number in range(3):
        restoring.write(0, "a", state_of(number))
    restoring.broker.delete_records(Partition(TOPIC, 0), 3)
    restoring.restore.start([0])
    assert restoring.steps(3) == {0}
    assert restoring.given == []


def test_it_waits_for_the_end_to_be_told(restoring: Restoring) -> None:
    restoring.broker.ends.delay = 2
    restoring.write(0, "a", state_of(1))
    restoring.restore.start([0])
    assert restoring.steps(3) == set()
    assert restoring.given == []
    assert restoring.steps(2) == {0}


def test_control_records_and_aborted_records_count_as_read(restoring: Restoring) -> None:
    producer = restoring.transaction()
    restoring.write(0, "a", state_of(1), producer)
    producer.commit_transaction()
    producer.begin_transaction()
    restoring.write(0, "a", state_of(2), producer)
    restoring.write(1, "b", state_of(2), producer)
    producer.abort_transaction()
    restoring.restore.start([0, 1])
    assert restoring.steps(3) == {0, 1}
    assert restoring.given == [(0, "a", state_of(1))]


def test_partitions_whose_ends_are_told_one_by_one_are_each_read_once(restoring: Restoring) -> None:
    for number in range(3):
        restoring.write(number, str(number), state_of(number))
    restoring.restore.start([0])
    restoring.broker.ends.delay = 1
    restoring.restore.start([1])
    restoring.broker.ends.delay = 3
    restoring.restore.start([2])
    assert restoring.steps(6) == {0, 1, 2}
    assert restoring.given == [(number, str(number), state_of(number)) for number in range(3)]


def test_it_reads_to_the_high_watermark_while_a_transaction_is_open(restoring: Restoring) -> None:
    """The last stable offset would miss what was committed behind the open transaction (KAFKA-10167)."""
    crashed = restoring.transaction("crashed")
    restoring.write(0, "torn", state_of(1), crashed)
    newer = restoring.transaction("newer")
    restoring.write(0, "newer", state_of(2), newer)
    newer.commit_transaction()
    restoring.restore.start([0])
    assert restoring.steps(4) == set()
    restoring.broker.expire_transaction("crashed")
    assert restoring.steps(2) == {0}
    assert restoring.given == [(0, "newer", state_of(2))]


def test_what_is_added_later_does_not_start_the_others_again(restoring: Restoring) -> None:
    open_transaction = restoring.transaction()
    restoring.write(0, "a", state_of(1))
    restoring.write(0, "torn", state_of(9), open_transaction)
    restoring.restore.start([0])
    restoring.steps(3)
    restoring.write(1, "b", state_of(2))
    restoring.restore.start([1])
    assert restoring.steps(3) == {1}
    open_transaction.abort_transaction()
    assert restoring.steps(3) == {0}
    assert restoring.given == [(0, "a", state_of(1)), (1, "b", state_of(2))]


def test_what_is_dropped_gives_nothing_more_and_can_begin_again(restoring: Restoring) -> None:
    restoring.write(0, "a", state_of(1))
    restoring.write(1, "b", state_of(2))
    restoring.restore.start([0, 1])
    restoring.restore.stop([0])
    assert restoring.steps(3) == {1}
    assert restoring.given == [(1, "b", state_of(2))]
    restoring.restore.start([0])
    assert restoring.steps(3) == {0}
    assert restoring.given[1:] == [(0, "a", state_of(1))]


def test_what_is_started_again_is_read_from_its_beginning(restoring: Restoring) -> None:
    open_transaction = restoring.transaction()
    restoring.write(0, "a", state_of(1))
    restoring.write(0, "torn", state_of(9), open_transaction)
    restoring.restore.start([0])
    assert restoring.steps(3) == set()
    restoring.restore.start([0])
    open_transaction.abort_transaction()
    assert restoring.steps(3) == {0}
    assert restoring.given == [(0, "a", state_of(1))] * 2


def test_a_broker_that_does_not_tell_the_end_is_asked_again(restoring: Restoring) -> None:
    restoring.write(0, "a", state_of(1))
    restoring.restore.start([0])
    restoring.broker.fail_next("ends", KafkaError(KafkaError._TRANSPORT))
    with pytest.raises(RetriableError):
        restoring.restore.step()
    assert restoring.steps(3) == {0}
    assert len(restoring.given) == 1


def test_a_state_that_cannot_be_read_stops_the_worker_and_names_the_record(restoring: Restoring) -> None:
    restoring.broker.send(TOPIC, key=b"a", value=b"what is this", partition=2)
    restoring.restore.start([2])
    with pytest.raises(FatalError, match=r"decision_state \[2\] offset 0: the state of a subject cannot be read"):
        restoring.steps(2)


def test_it_says_how_much_is_left_to_be_read(restoring: Restoring) -> None:
    crashed = restoring.transaction("crashed")
    restoring.broker.ends.delay = 1
    for number in range(6):
        restoring.write(0, "a", state_of(number))
        restoring.write(1, "a", state_of(number))
    restoring.write(1, "torn", state_of(1), crashed)
    restoring.broker.delete_records(Partition(TOPIC, 0), 2)
    restoring.restore.start([0, 1])
    assert restoring.restore.remaining == 0, "nobody knows yet"
    assert restoring.steps(3) == {0}
    assert restoring.restore.remaining == 1
    restoring.restore.stop([1])
    assert restoring.restore.remaining == 0


def test_it_tells_every_few_seconds_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelog, "_READ_AT_ONCE", 10)
    restoring = Restoring()
    for number in range(100):
        restoring.write(number % 2, str(number), state_of(number))
    restoring.restore.start([0, 1])
    with capture_logs() as logs:
        while not restoring.steps(1):
            restoring.seconds += 2
    lines = [line for line in logs if line["event"] == "restoring"]
    assert [(line["records"], line["offsets_read"], line["offsets_left"]) for line in lines] == [
        (30, 30, 70),
        (60, 60, 40),
        (90, 90, 10),
    ]
    assert [(line["records_per_s"], line["seconds_left"]) for line in lines] == [(5, 14), (5, 8), (5, 2)]
    [restored] = [line for line in logs if line["event"] == "restored"]
    assert (restored["partitions"], restored["records"], restored["seconds"]) == ([0, 1], 100, 20)
