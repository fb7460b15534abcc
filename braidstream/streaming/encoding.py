"""Decisions and states in Avro's binary encoding, from what a worker holds, without an object between.

Written by hand, for exactly the latest versions of `decision`, `decision_state` and `handled`: fastavro takes seven
times as long, and the tests compare every byte with it. What repeats from record to record (models, actions, the times
of a batch) is encoded once. https://avro.apache.org/docs/1.12.0/specification/#binary-encoding
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from struct import Struct

from braidstream.avro import HEADER_SIZE, Codec, long_bytes, string_bytes
from braidstream.deciding.join import Decided, Outcome, State
from braidstream.deciding.policy import Evidence, Verdict
from braidstream.errors import FatalError
from schemas.decision import Decision
from schemas.decision import Evidence as DecisionEvidence

_KEPT = 1024
_END = b"\x00"
_NULL, _VALUE = b"\x00", b"\x02"
_FALSE, _TRUE = b"\x00", b"\x01"
_double = Struct("<d").pack


def decision(head: bytes, made: Decided) -> bytes:
    """The value of a `decision`; `head` is what stands before the Avro body."""
    subject_id, revision, verdict, missing, evidence, opened_at, decided_at, _ = made
    name = subject_id.encode()
    return b"".join(
        (
            head,
            _long(len(name)),
            name,
            _long(revision),
            _name(verdict.action),
            _texts(verdict.reasons),
            _FALSE if missing else _TRUE,
            _names(missing),
            _evidence(evidence),
            _long(opened_at),
            _long(decided_at),
        )
    )


def state(head: bytes, subject_id: str, state: State) -> bytes:
    """The value of a `decision_state`; `head` is what stands before the Avro body."""
    event, expected, evidence, first_seen_at, expires_at, outcome, traceparent = state
    name = subject_id.encode()
    return b"".join(
        (
            head,
            _long(len(name)),
            name,
            _NULL if event is None else _VALUE + _long(len(event)) + event,
            _names(expected),
            _evidence(evidence),
            _long(first_seen_at),
            _long(expires_at),
            _NULL if outcome is None else _outcome(outcome),
            _NULL if traceparent is None else _VALUE + string_bytes(traceparent),
        )
    )


def handled(head: bytes, subject_id: str, expires_at: int) -> bytes:
    """The value of a `handled`; `head` is what stands before the Avro body."""
    name = subject_id.encode()
    return b"".join((head, _long(len(name)), name, _long(expires_at)))


def head(value: bytes, body: bytes) -> bytes:
    """What stands before the body in a value that fastavro has written; raises `FatalError` when the bodies differ."""
    if value[HEADER_SIZE:] != body:
        raise FatalError("the latest schema is not what braidstream/streaming/ writes by hand: change both together")
    return value[:HEADER_SIZE]


def decision_head(codec: Codec[Decision]) -> bytes:
    """What stands before the body of every decision; raises `FatalError` when the codec writes another schema."""
    example = Decision(
        subject_id="subject",
        revision=1,
        action="action",
        reasons=["reason"],
        complete=False,
        missing=["missing"],
        evidence=[DecisionEvidence(model="model", model_version="1", value=0.5)],
        opened_at=datetime.fromtimestamp(1, UTC),
        decided_at=datetime.fromtimestamp(2, UTC),
    )
    verdict = Verdict("action", ("reason",))
    made = Decided("subject", 1, verdict, ("missing",), (Evidence("model", "1", 0.5),), 1000, 2000)
    return head(codec.encode(example), decision(b"", made))


_long = lru_cache(_KEPT)(long_bytes)


def _text(text: str) -> bytes:
    return string_bytes(text.encode())


def _texts(texts: tuple[str, ...]) -> bytes:
    return _long(len(texts)) + b"".join([_text(text) for text in texts]) + _END if texts else _END


_name = lru_cache(_KEPT)(_text)
_names = lru_cache(_KEPT)(_texts)


@lru_cache(_KEPT)
def _source(model: str, version: str) -> bytes:
    return _text(model) + _text(version)


def _evidence(evidence: tuple[Evidence, ...]) -> bytes:
    if not evidence:
        return _END
    parts = [_long(len(evidence))]
    for model, version, value in evidence:
        parts += _source(model, version), _double(value)
    parts.append(_END)
    return b"".join(parts)


@lru_cache(_KEPT)
def _outcome(outcome: Outcome) -> bytes:
    return _VALUE + _long(outcome.revision) + _text(outcome.action) + (_TRUE if outcome.complete else _FALSE)
