"""What became of one subject, in order of time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from braidstream.cli.records import Undecoded, is_of
from braidstream.cli.search import Findings, Sighting
from braidstream.pipelines import Pipeline
from braidstream.streaming import traceparent
from braidstream.streaming.replay import Letter, Place, replayed_by

EVENT, PREDICTION, DECISION, DEAD_LETTER, SENT_BACK, OTHER = (
    "event",
    "prediction",
    "decision",
    "dead letter",
    "sent back",
    "record",
)


class Entry(NamedTuple):
    """One record, and what kind it is of. `note` says what is special of it: a repeat, or sent back for a group."""

    kind: str
    sighting: Sighting
    note: str | None

    @property
    def at(self) -> datetime | None:
        """When it was written."""
        return self.sighting.record.timestamp

    @property
    def fields(self) -> Mapping[str, Any]:
        """The fields of its value; none where it could not be decoded."""
        value = self.sighting.record.value
        return value if isinstance(value, dict) else {}

    @property
    def letter(self) -> Letter:
        """It as a dead letter."""
        return Letter.of(self.sighting.message)


@dataclass(frozen=True)
class Timeline:
    """The entries in order of time, and what is missing.

    `unanswered` are the expected models of which there is no prediction. `state` is the last that the decision service
    has kept of a subject without a decision, None where there is a decision or where it has kept none.
    """

    subject_id: str
    found: Findings
    entries: Sequence[Entry]
    unanswered: Sequence[str]
    state: Mapping[str, Any] | None

    def of(self, kind: str) -> list[Entry]:
        """The entries of one kind."""
        return [entry for entry in self.entries if entry.kind == kind]

    @property
    def began(self) -> datetime | None:
        """When the first event was written; where there is none, the first record."""
        first = (self.of(EVENT) or self.entries)[0]
        return first.at

    @property
    def trace_ids(self) -> list[str]:
        """Those of the `traceparent` headers, each once."""
        found = (traceparent.last_of(entry.sighting.record.headers.items()) for entry in self.entries)
        return list(dict.fromkeys(header.decode().split("-")[1] for header in found if header is not None))

    def sent_back_at(self, letter: Entry) -> datetime | None:
        """When a dead letter was sent back, by the note of that; None when it was not."""
        record = letter.sighting.record
        place = Place(record.partition, record.offset)
        return next((note.at for note in self.of(SENT_BACK) if replayed_by(note.sighting.message) == place), None)


def timeline(
    pipeline: Pipeline[Any],
    subject_id: str,
    found: Findings,
    states: Sequence[Sighting] = (),
    expected: Collection[str] = (),
) -> Timeline:
    """`states` are the decision service's of this subject; `expected` are the models to expect when nothing says it."""
    order = [pipeline.subjects.name, pipeline.predictions.name, pipeline.decisions.name, pipeline.dead_letters]
    ordered = sorted(found.sightings, key=lambda s: (_seconds(s), order.index(s.topic) if s.topic in order else 9))
    entries = list(_entries(pipeline, ordered))
    decisions = [entry.fields for entry in entries if entry.kind == DECISION and entry.fields]
    state = None
    if states and not decisions and is_of(pipeline.decision_state, states[-1].record):
        state = states[-1].record.value
    answered = {entry.fields.get("model") for entry in entries if entry.kind == PREDICTION}
    if decisions:
        expected = [*decisions[-1]["missing"]]
    elif state is not None and state["event"] is not None:
        expected = state["expected"]
    return Timeline(subject_id, found, entries, [model for model in expected if model not in answered], state)


def _seconds(sighting: Sighting) -> float:
    at = sighting.record.timestamp
    return at.timestamp() if at is not None else 0.0


def _kind(pipeline: Pipeline[Any], sighting: Sighting) -> str:
    """Of a record of somebody else's in one of the pipeline's topics it is `OTHER`."""
    if sighting.topic == pipeline.subjects.name:
        return EVENT
    if sighting.topic == pipeline.dead_letters:
        return DEAD_LETTER if replayed_by(sighting.message) is None else SENT_BACK
    for topic, kind in ((pipeline.predictions, PREDICTION), (pipeline.decisions, DECISION)):
        record = sighting.record
        if sighting.topic == topic.name and (isinstance(record.value, Undecoded) or is_of(topic, record)):
            return kind
    return OTHER


def _entries(pipeline: Pipeline[Any], sightings: Sequence[Sighting]) -> Iterator[Entry]:
    seen: set[object] = set()
    for sighting in sightings:
        kind = _kind(pipeline, sighting)
        fields = sighting.record.value if isinstance(sighting.record.value, dict) else {}
        note = None
        if kind == EVENT:
            note = _first(seen, EVENT, "repeat")
            if sighting.sent_back_for is not None:
                note = f"sent back for {sighting.sent_back_for}"
        elif kind == PREDICTION and fields:
            model = _first(seen, ("model", fields.get("model")), "another version")
            note = _first(seen, ("id", fields.get("prediction_id")), "repeat") or model
        elif kind == DECISION and fields:
            anew = _first(seen, ("revision", fields.get("revision")), "decided anew")
            note = _first(seen, (fields.get("opened_at"), fields.get("revision")), "repeat") or anew
        yield Entry(kind, sighting, note)


def _first(seen: set[object], thing: object, else_note: str) -> str | None:
    """None for the first of its kind."""
    if thing in seen:
        return else_note
    seen.add(thing)
    return None
