"""What is written by hand is what the schemas say, byte for byte as fastavro writes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braidstream.avro import AvroSchema, Codec, EventType, LocalSchemas, write
from braidstream.deciding.join import Decided, Outcome, State
from braidstream.deciding.policy import Evidence, Verdict
from braidstream.errors import FatalError
from braidstream.pipelines import changelog
from braidstream.streaming import encoding
from braidstream.streaming.state_codecs import HandledCodec, StateCodec
from rides.pipeline import RIDES
from schemas.decision_state import DecisionState

DECISION = RIDES.decisions.event_type
STATE = RIDES.decision_state.event_type
HANDLED = changelog("handled").event_type

texts = st.lists(st.text()).map(tuple)
times = st.integers(-(2**63), 2**63 - 1)
evidences = st.lists(st.builds(Evidence, st.text(), st.text(), st.floats())).map(tuple)
revisions = st.integers(0, 2**31 - 1)


@given(
    st.builds(
        Decided,
        subject_id=st.text(),
        revision=revisions,
        verdict=st.builds(Verdict, st.text(), texts),
        missing=texts,
        evidence=evidences,
        opened_at=times,
        decided_at=times,
    )
)
def test_a_decision_is_written_as_fastavro_writes_it(made: Decided) -> None:
    datum = {
        "subject_id": made.subject_id,
        "revision": made.revision,
        "action": made.verdict.action,
        "reasons": made.verdict.reasons,
        "complete": not made.missing,
        "missing": made.missing,
        "evidence": [evidence._asdict() for evidence in made.evidence],
        "opened_at": made.opened_at,
        "decided_at": made.decided_at,
    }
    assert encoding.decision(b"head", made) == b"head" + write(1, DECISION.latest, datum)[5:]


@given(
    st.text(),
    st.builds(
        State,
        event=st.none() | st.binary(),
        expected=texts,
        evidence=evidences,
        first_seen_at=times,
        expires_at=times,
        outcome=st.none() | st.builds(Outcome, revisions, st.text(), st.booleans()),
        traceparent=st.none() | st.text().map(str.encode),
    ),
)
def test_a_state_is_written_as_fastavro_writes_it(subject_id: str, state: State) -> None:
    datum = {
        "subject_id": subject_id,
        **state._asdict(),
        "evidence": [evidence._asdict() for evidence in state.evidence],
        "outcome": state.outcome._asdict() if state.outcome else None,
        "traceparent": state.traceparent.decode() if state.traceparent is not None else None,
    }
    assert encoding.state(b"head", subject_id, state) == b"head" + write(1, STATE.latest, datum)[5:]


@given(st.text(), times)
def test_what_was_handled_is_written_as_fastavro_writes_it(subject_id: str, expires_at: int) -> None:
    written = HandledCodec(HANDLED, LocalSchemas(HANDLED), "handled").encode(subject_id, expires_at)
    datum = {"subject_id": subject_id, "expires_at": expires_at}
    assert written == write(HANDLED.latest.local_id, HANDLED.latest, datum)


def test_long_texts_and_events_have_long_lengths() -> None:
    state = State(b"e" * 9000, ("m" * 70,), (Evidence("m" * 70, "v" * 200, 1.0),), 0, 0, None)
    codec = StateCodec(STATE, LocalSchemas(STATE), "decision_state")
    assert codec.decode(codec.encode("s" * 64, state)) == state


def test_a_schema_that_is_not_what_is_written_is_refused_at_the_start() -> None:
    changed = AvroSchema.from_text(STATE.latest.text.replace('"long"', '"double"').replace('"timestamp-millis"', '"x"'))
    event_type = EventType(DecisionState, (changed,))
    with pytest.raises(FatalError, match="change both"):
        StateCodec(event_type, LocalSchemas(event_type), "decision_state")


def test_times_of_another_unit_are_refused() -> None:
    micros = AvroSchema.from_text(STATE.latest.text.replace("timestamp-millis", "timestamp-micros"))
    event_type = EventType(DecisionState, (micros,))
    with pytest.raises(FatalError, match="timestamp-micros in a state's schema"):
        StateCodec(event_type, LocalSchemas(event_type), "decision_state")


def test_the_head_is_that_of_the_codec() -> None:
    codec = Codec(DECISION, LocalSchemas(DECISION), "decisions")
    assert encoding.decision_head(codec) == b"\x00" + DECISION.latest.local_id.to_bytes(4, "big")
