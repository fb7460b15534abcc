"""`braidstream trace`: what is told of the records of one subject."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from confluent_kafka import Message

from braidstream.cli import timeline_views
from braidstream.cli.records import Record as CliRecord
from braidstream.cli.records import Undecoded
from braidstream.cli.search import Findings, Sighting
from braidstream.cli.timeline import Timeline, timeline
from braidstream.settings import Settings
from braidstream.streaming.dead_letters import PREFIX, REPLAY
from rides.pipeline import RIDES
from tests.unit.events import NOON

SETTINGS = Settings(topic_prefix="x.")
NOW = NOON + timedelta(minutes=5)


def seen(
    topic: str,
    milliseconds: int,
    value: Any,
    *,
    offset: int = 0,
    number: int = 3,
    headers: dict[str, bytes] | None = None,
) -> Sighting:
    at = NOON + timedelta(milliseconds=milliseconds)
    pairs: list[tuple[str, str | bytes | None]] = [*(headers or {}).items()]
    raw = None if value is None else b"avro"
    message = Message(topic=f"x.{topic}", partition=number, offset=offset, key=b"ride-1", value=raw, headers=pairs)
    return Sighting(topic, message, CliRecord(number, offset, at, b"ride-1", headers or {}, value))


def event(milliseconds: int = 0, **changes: Any) -> Sighting:
    return seen("ride_started", milliseconds, {"ride_id": "ride-1", "pickup_zone": 74, "trip_distance": 2.5}, **changes)


def predicted(milliseconds: int, model: str, version: str = "1", **changes: Any) -> Sighting:
    value = {
        "prediction_id": f"{model}-{version}",
        "subject_id": "ride-1",
        "model": model,
        "model_version": version,
        "value": 7.4999999,
        "predicted_at": NOON,
    }
    return seen("predictions", milliseconds, value, **changes)


def decided(
    milliseconds: int, revision: int = 0, missing: Sequence[str] = (), opened: int = 0, **changes: Any
) -> Sighting:
    evidence = [{"model": "duration", "model_version": "1", "value": 7.4999999}]
    value = {
        "subject_id": "ride-1",
        "revision": revision,
        "action": "preassign",
        "reasons": ["7.5 minutes, at most 12"],
        "complete": not missing,
        "missing": list(missing),
        "evidence": evidence,
        "opened_at": NOON + timedelta(milliseconds=opened),
        "decided_at": NOON,
    }
    return seen("decisions", milliseconds, value, **changes)


def letter(milliseconds: int, group: str, **changes: Any) -> Sighting:
    names = {
        "topic": b"x.ride_started",
        "group": group.encode(),
        "stage": b"TRANSFORMATION",
        "exception.class.name": b"builtins.ValueError",
        "exception.message": b"zone 74",
    }
    headers = {f"{PREFIX}{name}": value for name, value in names.items()}
    return seen("dead_letters", milliseconds, {"ride_id": "ride-1"}, headers=headers, **changes)


def sent_back(topic: str, milliseconds: int, value: Any, **changes: Any) -> Sighting:
    headers = {f"{REPLAY}group": b"x.tip", f"{REPLAY}attempt": b"1", f"{REPLAY}letter": b"3:17"}
    return seen(topic, milliseconds, value, headers=headers, **changes)


def state(expected: Sequence[str], *, is_seen: bool = True, expires: int = 30_000) -> Sighting:
    value = {
        "subject_id": "ride-1",
        "event": b"avro" if is_seen else None,
        "expected": list(expected),
        "evidence": [],
        "first_seen_at": NOON,
        "expires_at": NOON + timedelta(milliseconds=expires),
    }
    return seen("decision_state", 10, value)


def told(
    *sightings: Sighting, states: Sequence[Sighting] = (), expected: Sequence[str] = (), home: int = 3
) -> Timeline:
    found = Findings(home, NOON - timedelta(minutes=1), sightings=list(sightings))
    return timeline(RIDES, "ride-1", found, states, expected)


def shown(timeline: Timeline, width: int = 80) -> list[str]:
    return list(timeline_views.lines(timeline, RIDES, SETTINGS, NOW, width))


def remarks(timeline: Timeline) -> str:
    lines = shown(timeline)
    return " ".join(lines[max(at for at, line in enumerate(lines) if not line) + 1 :])


def test_a_ride_from_its_event_to_a_revision() -> None:
    parent = {"traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    dead = letter(9, "x.tip", offset=17)
    lines = shown(
        told(
            decided(1_250, missing=["tip"]),
            event(offset=41, headers=parent),
            predicted(7, "duration", headers=parent),
            dead,
            sent_back("dead_letters", 4 * 60_000, None, offset=18),
            sent_back("ride_started", 4 * 60_000 + 1, {"ride_id": "ride-1", "pickup_zone": 74}, offset=99),
            predicted(4 * 60_000 + 9, "tip", offset=5),
            decided(4 * 60_000 + 20, 1, offset=6),
        )
    )
    assert lines == [
        "ride_id ride-1",
        "trace 4bf92f3577b34da6a3ce929d0e0e4736",
        "",
        "2026-01-01 UTC",
        "12:00:00.000               event        x.ride_started 3:41",
        "              pickup_zone=74 trip_distance=2.5",
        "12:00:00.007        +7 ms  prediction   x.predictions 3:0",
        "              duration 7.5, by version 1",
        "12:00:00.009        +9 ms  dead letter  x.dead_letters 3:17",
        "              of x.tip at TRANSFORMATION: ValueError: zone 74",
        "              sent back at 2026-01-01 12:04:00 UTC",
        "12:00:01.250     +1.250 s  decision 0   x.decisions 3:0",
        "              preassign: partial, without tip; 7.5 minutes, at most 12",
        "              from duration 7.5 (1)",
        "12:04:00.000   +4 min 0 s  sent back    x.dead_letters 3:18",
        "              the dead letter 3:17, for x.tip",
        "12:04:00.001   +4 min 0 s  event        x.ride_started 3:99",
        "              sent back for x.tip: pickup_zone=74",
        "12:04:00.009   +4 min 0 s  prediction   x.predictions 3:5",
        "              tip 7.5, by version 1",
        "12:04:00.020   +4 min 0 s  decision 1   x.decisions 3:6",
        "              preassign: complete; 7.5 minutes, at most 12",
        "              from duration 7.5 (1)",
        "",
    ]


def test_what_comes_again_is_noted() -> None:
    made = told(
        event(0),
        event(1, offset=1),
        predicted(2, "duration"),
        predicted(3, "duration", offset=1),
        predicted(4, "duration", "2", offset=2),
        predicted(5, "tip", "2", offset=3),
        decided(6),
        decided(7, offset=1),
        decided(8, opened=5, offset=2),
    )
    assert "              repeat" in shown(made)
    assert [entry.note for entry in made.entries] == [
        *(None, "repeat"),
        *(None, "repeat", "another version", None),
        *(None, "repeat", "decided anew"),
    ]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(999, "+999 ms"), (-3, "-3 ms"), (59_999, "+59.999 s"), (61_000, "+1 min 1 s"), (7_260_000, "+2 h 1 min")],
)
def test_times_after_the_event_are_short(milliseconds: int, text: str) -> None:
    assert [line for line in shown(told(event(), predicted(milliseconds, "tip"))) if f"{text}  prediction" in line]


def test_after_two_days_time_is_in_days_and_each_day_is_named() -> None:
    lines = shown(told(event(), predicted(50 * 3_600_000, "tip")))
    assert lines[lines.index("2026-01-03 UTC") + 1] == "14:00:00.000     +2 d 2 h  prediction   x.predictions 3:0"


# What is missing


def test_a_decision_says_who_has_not_answered() -> None:
    made = told(event(), predicted(1, "duration"), decided(2, missing=["tip", "speed"]), predicted(3, "speed"))
    assert made.unanswered == ["tip"]
    assert remarks(made) == "tip has not answered."


def test_a_dead_letter_says_why() -> None:
    assert "tip has not answered: its dead letter says why." in remarks(
        told(event(), letter(1, "x.tip"), decided(2, missing=["tip"]))
    )


def test_without_a_decision_the_state_says_what_is_waited_for() -> None:
    waiting = told(event(), predicted(1, "duration"), states=[state(["duration", "tip"], expires=600_000)])
    assert remarks(waiting) == (
        "tip has not answered. There is no decision yet: the decision service waits until 2026-01-01 12:10:00 UTC."
    )
    late = told(event(), states=[state(["duration"])])
    assert "although its deadline was 2026-01-01 12:00:30 UTC" in remarks(late)
    early = told(event(), predicted(1, "duration"), states=[state([], is_seen=False)], expected=["duration", "tip"])
    assert early.unanswered == ["tip"]
    assert "waits for the event until" in remarks(early)


def test_without_decision_and_state_the_setting_says_who_is_expected() -> None:
    made = told(event(), expected=["duration"])
    assert made.unanswered == ["duration"]
    assert "the decision service has not read the event: is it running, or behind?" in remarks(made)
    assert "the dead letters say why" in remarks(told(event(), letter(1, "x.decision")))


def test_a_state_that_cannot_be_read_is_none() -> None:
    unreadable = seen("decision_state", 1, Undecoded("schema id 5 is not known", b""))
    assert told(event(), states=[unreadable]).state is None


@pytest.mark.parametrize(
    "change",
    [{"missing": None}, {"evidence": [{"model": "tip"}]}, {"opened_at": "today"}, {"revision": ["0"]}, {"action": 1}],
)
def test_what_has_the_fields_of_a_decision_and_is_none_is_a_record_of_others(change: dict[str, Any]) -> None:
    other = decided(1)
    made = told(event(), other._replace(record=replace(other.record, value={**other.record.value, **change})))
    assert [entry.kind for entry in made.entries] == ["event", "record"]
    assert "There is no decision" in remarks(made)


def test_what_a_later_version_adds_to_a_prediction_leaves_it_one() -> None:
    one = predicted(1, "tip")
    made = told(event(), one._replace(record=replace(one.record, value={**one.record.value, "confidence": 0.5})))
    assert [entry.kind for entry in made.entries] == ["event", "prediction"]


def test_an_event_out_of_its_keys_partition_and_one_that_is_gone_are_told() -> None:
    assert remarks(told(event(), decided(1), home=2)).startswith(
        "Its event is in partition 3 of x.ride_started, where its key does not belong (2)"
    )
    assert remarks(told(decided(1))) == "Its event is not in x.ride_started any more."


def test_what_was_not_read_is_told_with_the_option_that_reads_it() -> None:
    made = told(event(), decided(1))
    made.found.until = NOON + timedelta(minutes=2)
    assert remarks(made) == (
        "Read up to 2026-01-01 12:02:00 UTC. What came later: --since 2026-01-01T11:59 reads to the end."
    )


# Whatever is in the records


@pytest.mark.parametrize("width", [40, 80, 120])
def test_lines_fit_the_terminal_and_command_nothing(width: int) -> None:
    junk = "\x1b[2J" + "x" * 500
    sightings = [
        event(headers={"traceparent": b"00-" + b"x" * 500 + b"-y-01"}),
        seen("ride_started", 1, {"ride_id": "ride-1", "text": junk}, offset=1),
        seen("ride_started", 2, Undecoded(f"not Avro {junk}", b""), offset=2),
        seen("predictions", 3, Undecoded(junk, b"")),
        seen("decisions", 4, Undecoded(junk, b"")),
        seen("predictions", 4, {"ride_id": "ride-1"}, offset=1),
        seen("decisions", 4, None, offset=1),
        seen("notifications", 5, None),
        seen("notifications", 6, {"user_id": junk}, offset=1),
        letter(7, junk),
    ]
    lines = shown(told(*sightings), width)
    assert max(map(len, lines)) <= width
    assert "\x1b" not in "".join(lines)
    assert any("a tombstone: forgotten" in line for line in lines)


def test_as_json() -> None:
    made = told(event(), predicted(7, "duration"), letter(9, "x.tip", offset=17), states=[state(["duration", "tip"])])
    said = json.loads(json.dumps(timeline_views.as_object(made)))
    assert (said["subject_id"], said["unanswered"], said["trace_ids"]) == ("ride-1", ["tip"], [])
    assert said["waits_until"] == "2026-01-01T12:00:30.000+00:00"
    assert said["read"] == {"since": "2026-01-01T11:59:00.000+00:00", "until": None}
    first, second, dead = said["timeline"]
    assert (first["what"], first["topic"], first["after_ms"], first["value"]["pickup_zone"]) == (
        *("event", "ride_started"),
        *(0, 74),
    )
    assert (second["what"], second["partition"], second["after_ms"], second["value"]["model"]) == (
        *("prediction", 3),
        *(7, "duration"),
    )
    assert (dead["group"], dead["message"], dead["sent_back_at"]) == ("x.tip", "zone 74", None)
