"""A subject's timeline, as people and programs read it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from braidstream.cli import letter_views
from braidstream.cli.records import Undecoded, as_json, iso, printable, to_seconds, word
from braidstream.cli.timeline import DEAD_LETTER, DECISION, EVENT, PREDICTION, SENT_BACK, Entry, Timeline
from braidstream.pipelines import Pipeline
from braidstream.settings import Settings
from braidstream.streaming.replay import replayed_by

_INDENT = " " * 14


def as_object(told: Timeline) -> dict[str, Any]:
    """The timeline for `json.dumps`; times are in ISO 8601, and None in `read` is as far as there was anything."""
    return {
        "subject_id": told.subject_id,
        "trace_ids": told.trace_ids,
        "timeline": [_entry_object(told, entry) for entry in told.entries],
        "unanswered": list(told.unanswered),
        "waits_until": iso(told.state["expires_at"]) if told.state is not None else None,
        "read": {"since": iso(told.found.since), "until": iso(told.found.until)},
    }


def _entry_object(told: Timeline, entry: Entry) -> dict[str, Any]:
    sighting = entry.sighting
    said: dict[str, Any] = {
        "what": entry.kind,
        "topic": sighting.topic,
        **as_json(sighting.record),
        "after_ms": _milliseconds(told, entry),
        "note": entry.note,
    }
    if entry.kind == DEAD_LETTER:
        letter = entry.letter
        names = {"group": letter.group, "stage": letter.stage, "exception": letter.exception, "message": letter.message}
        said |= {**names, "sent_back_at": iso(told.sent_back_at(entry))}
    return said


def lines(told: Timeline, pipeline: Pipeline[Any], settings: Settings, now: datetime, width: int) -> Iterator[str]:
    """The timeline and what is missing in lines of at most so many characters."""
    yield from _wrapped(f"{pipeline.subjects.key} {told.subject_id}", width)
    for trace_id in told.trace_ids:
        yield f"trace {trace_id}"
    day = None
    for entry in told.entries:
        if entry.at is not None and entry.at.date() != day:
            day = entry.at.date()
            yield ""
            yield f"{day} UTC"
        yield from _entry_lines(told, entry, settings, width)
    yield ""
    for remark in _remarks(told, pipeline, settings, now):
        yield from _wrapped(remark, width)


def _entry_lines(told: Timeline, entry: Entry, settings: Settings, width: int) -> Iterator[str]:
    record, kind = entry.sighting.record, entry.kind
    if kind == DECISION and "revision" in entry.fields:
        kind = f"{kind} {entry.fields['revision']}"
    time = f"{entry.at:%H:%M:%S.%f}"[:12] if entry.at is not None else "-"
    place = f"{settings.named(entry.sighting.topic)} {record.partition}:{record.offset}"
    yield from _wrapped(f"{time:12}  {_after(told, entry):>11}  {kind:11}  {place}", width, "", _INDENT)
    details = [*_details(told, entry)]
    if entry.note is not None:
        is_same = entry.kind == EVENT and entry.fields == told.of(EVENT)[0].fields
        details[:1] = [entry.note if is_same else ": ".join([entry.note, *details[:1]])]
    for detail in details:
        yield from _wrapped(detail, width, _INDENT, _INDENT)


def _details(told: Timeline, entry: Entry) -> Iterator[str]:
    record, fields = entry.sighting.record, entry.fields
    if entry.kind == DEAD_LETTER:
        letter, sent_at = entry.letter, told.sent_back_at(entry)
        yield f"of {letter.group or '-'} at {letter.stage or '-'}: {letter_views.reason(letter)}"
        yield f"sent back at {to_seconds(sent_at)} UTC" if sent_at is not None else "not sent back"
    elif entry.kind == SENT_BACK:
        yield f"the dead letter {replayed_by(entry.sighting.message)}, for {entry.sighting.sent_back_for}"
    elif isinstance(record.value, Undecoded):
        yield f"undecoded: {record.value.reason}"
    elif entry.kind == PREDICTION:
        yield f"{fields['model']} {word(fields['value'])}, by version {fields['model_version']}"
    elif entry.kind == DECISION:
        yield from _decision(fields)
    elif record.value is None:
        yield "a tombstone: forgotten"
    else:
        yield " ".join(f"{name}={word(value)}" for name, value in fields.items() if value != told.subject_id)


def _decision(fields: Mapping[str, Any]) -> Iterator[str]:
    missing = fields["missing"]
    completeness = f"partial, without {', '.join(missing)}" if missing else "complete"
    reasons = "".join(f"; {reason}" for reason in fields["reasons"])
    yield f"{fields['action']}: {completeness}{reasons}"
    grounds = (f"{e['model']} {word(e['value'])} ({e['model_version']})" for e in fields["evidence"])
    if evidence := ", ".join(grounds):
        yield f"from {evidence}"


def _remarks(told: Timeline, pipeline: Pipeline[Any], settings: Settings, now: datetime) -> Iterator[str]:
    """What is missing, or not as it should be, and what was not read."""
    subjects = settings.named(pipeline.subjects.name)
    if not (events := told.of(EVENT)):
        yield f"Its event is not in {subjects} any more."
    elif (number := events[0].sighting.record.partition) != told.found.home:
        yield (
            f"Its event is in partition {number} of {subjects}, where its key does not belong ({told.found.home}): its "
            "producer partitions by something else than murmur2_random."
        )
    for model in told.unanswered:
        yield f"{model} has not answered{_why(told, settings.named(model))}."
    if not told.of(DECISION):
        yield _undecided(told, now)
    if told.found.until is not None:
        yield (
            f"Read up to {to_seconds(told.found.until)} UTC. What came later: "
            f"--since {_minute(told.found.since)} reads to the end."
        )


def _why(told: Timeline, group: str) -> str:
    letters = [entry for entry in told.of(DEAD_LETTER) if entry.letter.group == group]
    return ": its dead letter says why" if letters else ""


def _undecided(told: Timeline, now: datetime) -> str:
    state = told.state
    if state is None and told.of(DEAD_LETTER):
        return "There is no decision: the dead letters say why, unless the decision service is behind."
    if state is None:
        return "There is no decision, and the decision service has not read the event: is it running, or behind?"
    until = to_seconds(state["expires_at"])
    if state["event"] is None:
        return f"There is no decision: the decision service has predictions and waits for the event until {until} UTC."
    if state["expires_at"] > now:
        return f"There is no decision yet: the decision service waits until {until} UTC."
    return f"There is no decision, although its deadline was {until} UTC: is the decision service running, or behind?"


def _milliseconds(told: Timeline, entry: Entry) -> int | None:
    began = told.began
    if began is None or entry.at is None:
        return None
    return round((entry.at - began) / timedelta(milliseconds=1))


def _after(told: Timeline, entry: Entry) -> str:
    """How long after the event, in few characters; empty for the event itself."""
    milliseconds = _milliseconds(told, entry)
    if milliseconds is None or (milliseconds == 0 and entry.kind == EVENT):
        return ""
    sign, left = "-" if milliseconds < 0 else "+", abs(milliseconds)
    if left < 1000:
        return f"{sign}{left} ms"
    if left < 60_000:
        return f"{sign}{left / 1000:.3f} s"
    minutes = left // 60_000
    if minutes < 60:
        return f"{sign}{minutes} min {left // 1000 % 60} s"
    hours = minutes // 60
    return f"{sign}{hours} h {minutes % 60} min" if hours < 48 else f"{sign}{hours // 24} d {hours % 24} h"


def _minute(time: datetime | None) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M}" if time is not None else "beginning"


def _wrapped(text: str, width: int, first: str = "", then: str = "") -> list[str]:
    return textwrap.wrap(printable(text), width, initial_indent=first, subsequent_indent=then)
