"""The trace of a ride: from its event through the predictions to the decision, whoever records it, or nobody."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from braidstream.avro import LocalSchemas, write
from braidstream.deciding.policy import Known, Policy, Verdict
from braidstream.embedded import PARTITIONS, EmbeddedBroker, appear, properties_at
from braidstream.settings import Settings
from braidstream.streaming.dead_letters import raw_headers
from braidstream.streaming.ports import Headers
from braidstream.streaming.state_codecs import StateCodec
from braidstream.streaming.traceparent import HEADER, is_sampled, last_of, new_traceparents, read
from braidstream.testing.broker import FakeBroker
from braidstream.testing.kit import PolicyKit, ScorerKit
from braidstream.writer import open_writer
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.unit.events import ride
from tests.unit.test_dlq_replay import begun, open_letters

FIRST = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
DEADLINE = 30


@pytest.mark.parametrize("value", [FIRST, OTHER])
def test_a_trace_context_is_passed_on_as_it_came(value: bytes) -> None:
    assert read(value) == value


@pytest.mark.parametrize("more", [b"", b"-", b"-what.is.new\n"])
def test_one_of_a_later_version_becomes_one_of_this(more: bytes) -> None:
    assert read(b"cc" + FIRST[2:] + more) == FIRST


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        FIRST[:-1],
        FIRST + b"0",
        FIRST + b"-new",
        FIRST + b"\n",
        FIRST.upper(),
        b"ff" + FIRST[2:],
        b"cc" + FIRST[2:] + b".new",
        FIRST.replace(b"-", b"_"),
        FIRST.replace(b"4bf92f3577b34da6a3ce929d0e0e4736", b"0" * 32),
        FIRST.replace(b"00f067aa0ba902b7", b"0" * 16),
    ],
)
def test_what_is_no_trace_context_is_dropped(value: bytes | None) -> None:
    assert read(value) is None


@given(st.binary() | st.from_regex(rb"[0-9a-f]{2}-[0-9a-g]{31,33}-[0-9a-f]{15,17}-[0-9a-f]{2}.?", fullmatch=True))
def test_whatever_comes_is_dropped_or_a_trace_context(value: bytes) -> None:
    found = read(value)
    assert found is None or (len(found) == len(FIRST) and found.startswith(b"00-") and read(found) == found)


def test_the_last_of_several_that_is_one_counts() -> None:
    headers: Headers = [(HEADER, OTHER), ("other", b"x"), (HEADER, FIRST), (HEADER, b"\xff")]
    assert last_of(headers) == FIRST
    assert last_of([("other", FIRST)]) is None


def test_new_ones_are_all_different_and_to_be_recorded() -> None:
    made = new_traceparents(100)
    assert len({value[:36] for value in made}) == len({value[36:] for value in made}) == 100
    assert all(read(value) == value and is_sampled(value) for value in made)


def patient(known: Known[RideStarted]) -> Verdict | None:
    return Verdict("late" if known.missing else "complete") if known.final else None


class Pipeline:
    """A model and a decision service on one broker."""

    def __init__(self, policy: Policy[RideStarted] = patient) -> None:
        self.broker = FakeBroker()
        self.duration = ScorerKit(
            RIDES, predict=lambda rides: [1.0] * len(rides), model="duration", broker=self.broker, group="duration"
        )
        self.decision = PolicyKit(
            RIDES, policy, expected=("duration",), deadline=DEADLINE, broker=self.broker, group="decision"
        )

    def event(self, name: str, *traceparents: bytes) -> None:
        """An event, which only the decision service reads for now."""
        headers: Headers = [(HEADER, value) for value in traceparents]
        self.broker.send("ride_started", key=name.encode(), value=self.decision.encode(ride(name)), headers=headers)
        self.decision.run()

    def predict(self) -> None:
        self.duration.run()
        self.decision.run()

    def traces(self, topic: str) -> dict[str, list[bytes | None]]:
        """Of the records of a topic, by their keys."""
        found: defaultdict[str, list[bytes | None]] = defaultdict(list)
        for record in self.broker.records(topic):
            found[(record.key() or b"").decode()].append(trace_of(record))
        return dict(found)


def trace_of(record: Message) -> bytes | None:
    found = [value for name, value in raw_headers(record) if name == HEADER]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.fixture
def rides() -> Pipeline:
    return Pipeline()


def test_it_goes_from_the_event_through_the_prediction_to_the_decision(rides: Pipeline) -> None:
    rides.event("traced", FIRST)
    rides.event("untraced")
    rides.event("odd", b"00-nonsense")
    rides.event("relayed", OTHER, FIRST)
    rides.predict()
    expected = {"traced": [FIRST], "untraced": [None], "odd": [None], "relayed": [FIRST]}
    assert rides.traces("predictions") == rides.traces("decisions") == expected
    assert rides.decision.dead_letters == []


def test_a_decision_at_the_deadline_has_the_one_of_the_event_also_after_a_restart(rides: Pipeline) -> None:
    rides.event("traced", FIRST)
    rides.decision.restart(crash=True)
    rides.event("untraced")
    decided = rides.decision.advance(DEADLINE)
    assert {one.subject_id: one.action for one in decided} == {"traced": "late", "untraced": "late"}
    assert rides.traces("decisions") == {"traced": [FIRST], "untraced": [None]}


def test_a_decision_has_the_one_of_what_it_was_made_by_or_else_the_events(rides: Pipeline) -> None:
    elsewhere = Pipeline()
    for name in ("ride-1", "ride-2"):
        rides.event(name, FIRST)
        elsewhere.event(name)
    elsewhere.predict()
    for record in elsewhere.broker.records("predictions"):
        headers: Headers = [(HEADER, OTHER)] if record.key() == b"ride-1" else []
        rides.broker.send("predictions", key=record.key(), value=record.value(), headers=headers)
    rides.decision.run()
    assert rides.traces("decisions") == {"ride-1": [OTHER], "ride-2": [FIRST]}


def test_a_revision_has_the_one_of_the_late_prediction(rides: Pipeline) -> None:
    rides.event("ride-1", FIRST)
    rides.decision.advance(DEADLINE)
    rides.predict()
    assert [(decision.revision, decision.complete) for decision in rides.decision.decisions] == [(0, False), (1, True)]
    assert rides.traces("decisions") == {"ride-1": [FIRST, FIRST]}


def test_an_event_behind_its_predictions_brings_its_own(rides: Pipeline) -> None:
    rides.event("ride-1", FIRST)
    rides.predict()
    first = PolicyKit(RIDES, patient, expected=("duration",), group="behind")
    for record in (*rides.broker.records("predictions"), *rides.broker.records("ride_started")):
        found: Headers = [(HEADER, OTHER if record.topic() == "ride_started" else FIRST)]
        first.broker.send(str(record.topic()), key=record.key(), value=record.value(), headers=found)
        first.run()
    assert [trace_of(record) for record in first.broker.records("decisions")] == [OTHER]


def test_it_is_kept_while_a_decision_is_open_and_only_where_it_came(rides: Pipeline) -> None:
    codec = StateCodec(RIDES.decision_state.event_type, LocalSchemas(RIDES.decision_state.event_type), "decision_state")
    rides.event("traced", FIRST)
    rides.event("untraced")
    rides.decision.advance(DEADLINE)
    states = [(record.key(), codec.decode(record.value() or b"")) for record in rides.broker.records("decision_state")]
    kept = {(key, state.outcome is None): state.traceparent for key, state in states}
    assert kept == {
        (b"traced", True): FIRST,
        (b"traced", False): None,
        (b"untraced", True): None,
        (b"untraced", False): None,
    }


def test_a_state_from_before_is_read() -> None:
    event_type = RIDES.decision_state.event_type
    before = event_type.versions[0]
    assert "traceparent" not in before.text
    datum = {"subject_id": "a", "event": b"e", "expected": ["tip"], "evidence": [], "first_seen_at": 1, "expires_at": 2}
    value = write(before.local_id, before, {**datum, "outcome": None})
    state = StateCodec(event_type, LocalSchemas(event_type), "decision_state").decode(value)
    assert (state.event, state.expires_at, state.traceparent) == (b"e", 2, None)


def test_a_dead_letter_of_a_deadline_carries_it_and_the_decision_then_has_it() -> None:
    verdicts = iter([None, Verdict("mended")])
    rides = Pipeline(lambda known: next(verdicts) if known.final else None)
    rides.event("ride-1", FIRST)
    rides.decision.advance(DEADLINE)
    assert rides.traces("dead_letters") == {"ride-1": [FIRST]}
    begun(rides.broker).send(open_letters(rides.broker))
    rides.decision.run()
    assert rides.traces("ride_started") == {"ride-1": [FIRST, FIRST]}
    assert rides.traces("decisions") == {"ride-1": [FIRST]}


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as opened:
        appear(Producer({"bootstrap.servers": opened.bootstrap_servers}), [RIDES.subjects.name])
        yield opened


@pytest.mark.parametrize("traces", [True, False])
def test_a_writer_begins_a_trace_with_each_event_where_it_is_told_to(broker: EmbeddedBroker, traces: bool) -> None:
    properties = properties_at(broker.bootstrap_servers)
    settings = Settings(kafka=properties, partitions=PARTITIONS, broker_timeout=30)
    with open_writer(RIDES.subjects, settings, traces=traces) as writer:
        for number in range(3):
            writer.send(ride(f"ride-{number}"))
    consumer = Consumer({**properties, "group.id": "test"})
    consumer.assign([TopicPartition(RIDES.subjects.name, number, 0) for number in range(PARTITIONS)])
    found = [trace_of(message) for message in consumer.consume(3, 30)]
    consumer.close()
    if traces:
        assert len(set(found)) == 3
        assert all(value is not None and read(value) == value for value in found)
    else:
        assert found == [None, None, None]
