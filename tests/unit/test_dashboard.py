"""What a dashboard shows at every size of terminal, and the figures that it is made of."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from braidstream.cli.following import MOST_A_SECOND, numbers_to_follow
from braidstream.dashboard.recent import Rates, Recent
from braidstream.dashboard.render import Dashboard, as_line
from braidstream.dashboard.subjects import Subjects
from braidstream.dashboard.view import GroupRow, Latency, TopicRow, View, as_json, partial_share
from schemas.decision import Decision
from schemas.decision_state import DecisionState, Outcome

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


def decision(subject: str, revision: int = 0, *, complete: bool = True, reason: str = "17.6 minutes") -> Decision:
    return Decision(
        subject_id=subject,
        revision=revision,
        action="standard" if complete else "review",
        reasons=[reason, "more than 12"],
        complete=complete,
        missing=[] if complete else ["tip"],
        evidence=[],
        opened_at=NOW,
        decided_at=NOW,
    )


VIEW = View(
    title="braidstream top · localhost:9092",
    at=NOW,
    topics=(
        TopicRow("ride_started", 1999.7, 29_976),
        TopicRow("predictions", 3999.2, 1_059_952),
        TopicRow("decisions", 2001.4, 29_912),
        TopicRow("dead_letters", 0.4, 3, is_alarming=True),
        TopicRow("decision_state", None, None),
    ),
    groups=(GroupRow("decision", 1234, 1), GroupRow("duration", 17, 2), GroupRow("tip", 0, 0)),
    open_decisions=42,
    open_is_exact=False,
    latency=Latency(41.6, 12_643.0),
    partial=0.0132,
    decisions=(
        decision("0000c8a7-16cd-8011-94d2-0a5ed6c9885d"),
        decision("00005a3f-16cd-8011-94d2-0a5ed6c9885d", complete=False),
        decision("00000003-16cd-8011-94d2-0a5ed6c9885d", 1),
    ),
)


USUAL = """\
braidstream top · localhost:9092                         2026-01-02 03:04:05 UTC

TOPIC          RECORDS/S        TOTAL   GROUP           LAG MEMBERS
ride_started       2,000       29,976   decision      1,234       1
predictions        3,999    1,059,952   duration         17       2
decisions          2,001       29,912   tip               0       0
dead_letters         0.4            3
decision_state         -            -

open about 42 · latency p50 42 ms p99 12.6 s · partial 1.3%

DECIDED   SUBJECT       ACTION                 REASONS
03:04:05  0000c8a7-16…  standard  complete     17.6 minutes; more than 12
03:04:05  00005a3f-16…  review    partial      17.6 minutes; more than 12
03:04:05  00000003-16…  standard  complete r1  17.6 minutes; more than 12"""

SMALL = """\
braidstream top · localhost:9092                03:04:05 UTC
TOPIC          RECORDS/S        TOTAL
ride_started       2,000       29,976
predictions        3,999    1,059,952
decisions          2,001       29,912
dead_letters         0.4            3
decision_state         -            -
GROUP                 LAG MEMBERS
decision            1,234       1
duration               17       2
tip                     0       0
open about 42 · latency p50 42 ms p99 12.6 s · partial 1.3%
DECIDED   SUBJECT       ACTION              REASONS
03:04:05  0000c8a7-16…  standard  complete  17.6 minutes; m…
03:04:05  00005a3f-16…  review    partial   17.6 minutes; m…"""

LARGE = """\
braidstream top · localhost:9092                                                                                                                                                 2026-01-02 03:04:05 UTC

TOPIC          RECORDS/S        TOTAL   GROUP           LAG MEMBERS
ride_started       2,000       29,976   decision      1,234       1
predictions        3,999    1,059,952   duration         17       2
decisions          2,001       29,912   tip               0       0
dead_letters         0.4            3
decision_state         -            -

open about 42 · latency p50 42 ms p99 12.6 s · partial 1.3%

DECIDED       SUBJECT                               ACTION                 REASONS
03:04:05.678  0000c8a7-16cd-8011-94d2-0a5ed6c9885d  standard  complete     17.6 minutes; more than 12
03:04:05.678  00005a3f-16cd-8011-94d2-0a5ed6c9885d  review    partial      17.6 minutes; more than 12
03:04:05.678  00000003-16cd-8011-94d2-0a5ed6c9885d  standard  complete r1  17.6 minutes; more than 12"""  # noqa: E501


def screen(view: View, columns: int, rows: int) -> list[str]:
    """What is on a terminal of this size, without the blanks at the ends of lines."""
    console = Console(file=io.StringIO(), width=columns, height=rows, record=True, force_terminal=True)
    console.print(Dashboard(view))
    lines = console.export_text().rstrip("\n").split("\n")
    assert len(lines) <= rows
    assert max(map(len, lines)) <= columns
    return [line.rstrip() for line in lines]


def test_a_usual_terminal() -> None:
    assert screen(VIEW, 80, 24) == USUAL.split("\n")


def test_a_small_terminal() -> None:
    assert screen(VIEW, 60, 15) == SMALL.split("\n")


def test_a_large_terminal() -> None:
    assert screen(VIEW, 200, 60) == LARGE.split("\n")


@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (10, 3), (30, 6), (40, 100), (79, 8), (71, 24), (300, 5)])
def test_any_terminal(columns: int, rows: int) -> None:
    assert screen(VIEW, columns, rows)


def test_what_is_not_known_yet() -> None:
    unknown = View("t", NOW, (TopicRow("rides", None, None),), (), None, False, None, None, ())
    lines = screen(unknown, 80, 24)
    assert "open - · latency - · partial -" in lines
    assert "no decision yet" in lines


def test_a_problem_is_told_before_what_happened_last() -> None:
    told = replace(VIEW, note="the service is stopped", problem="no answer of the broker for 5 s")
    assert screen(told, 80, 24)[1] == "no answer of the broker for 5 s"
    assert screen(replace(told, problem=None), 80, 24)[1] == "the service is stopped"


def test_what_is_long_to_say_has_two_lines_where_there_is_room() -> None:
    told = replace(VIEW, note="what needs the service " * 8)
    assert screen(told, 80, 24)[1:3] == [
        "what needs the service what needs the service what needs the service what needs",
        "the service what needs the service what needs the service what needs the…",
    ]
    assert screen(told, 80, 12)[2].startswith("TOPIC")


def test_rows_that_do_not_fit_are_counted() -> None:
    topics = tuple(TopicRow(f"topic-{number}", 1.0, 1) for number in range(30))
    for columns in (80, 60):
        lines = screen(replace(VIEW, topics=topics), columns, 24)
        shown = sum(line.startswith("topic-") for line in lines)
        assert shown > 5
        assert any(line.startswith(f"… {30 - shown} more") for line in lines)


def test_nothing_that_a_terminal_might_obey_is_shown() -> None:
    evil = "\x1b[2J\x1b]0;title\x07\n"
    shown = replace(VIEW, decisions=(decision(evil, reason=evil),), groups=(GroupRow(evil, 1, 1),), problem=evil)
    text = "\n".join([*screen(shown, 200, 24), *screen(shown, 60, 24), as_line(shown)])
    assert "\x1b" not in text
    assert "\x07" not in text


def test_wide_letters_take_their_room() -> None:
    console = Console(file=io.StringIO(), width=60, height=24, record=True, force_terminal=True)
    console.print(Dashboard(replace(VIEW, decisions=(decision("視頻" * 20),))))
    assert len(console.export_text().rstrip("\n").split("\n")) <= 24


def test_a_line_for_a_pipe() -> None:
    assert as_line(replace(VIEW, problem="no answer")) == (
        "03:04:05 ride_started 2,000/s, predictions 3,999/s, decisions 2,001/s, dead_letters 0.4/s, "
        "decision_state -/s · lag: decision 1,234, duration 17, tip 0 · "
        "open about 42 · latency p50 42 ms p99 12.6 s · partial 1.3% · "
        "0000c8a7-16cd-8011-94d2-0a5ed6c9885d standard, complete: 17.6 minutes; more than 12 · PROBLEM: no answer"
    )


def test_what_programs_read() -> None:
    found = as_json(replace(VIEW, note="of 3 of 6 partitions"))
    assert found["at"] == "2026-01-02T03:04:05.678+00:00"
    assert found["topics"][0] == {"name": "ride_started", "rate": 1999.7, "total": 29_976}
    assert found["groups"][0] == {"name": "decision", "lag": 1234, "members": 1}
    assert found["open"] == {"decisions": 42, "exact": False}
    assert found["latency_ms"] == {"p50": 41.6, "p99": 12_643.0}
    assert found["decisions"][1]["missing"] == ["tip"]
    assert (found["note"], found["problem"]) == ("of 3 of 6 partitions", None)


def test_a_rate_is_of_the_last_seconds() -> None:
    rates = Rates()
    assert rates("a") is None
    rates.add(0.0, {"a": 1000})
    assert rates("a") is None
    for second in range(1, 21):
        rates.add(float(second), {"a": 1000 + 10 * min(second, 10)})
        if second == 10:
            assert rates("a") == 10.0
    assert rates("a") == 0.0
    rates.add(21.0, {"a": 0})
    assert rates("a") == 0.0, "a topic was made anew"


def test_what_is_recent() -> None:
    recent: Recent[int] = Recent()
    for second in range(3000):
        recent.add(second, second)
    assert recent.since(2998) == [(2998, 2998), (2999, 2999)]
    assert recent.latest(2) == [2999, 2998]
    assert len(recent.since(0)) == 2000


def test_percentiles_and_shares_of_nothing_are_unknown() -> None:
    assert Latency.of([]) is None
    assert Latency.of([1.0, 2.0, 3.0]) == Latency(2.0, 3.0)
    assert partial_share([]) is None
    assert partial_share([decision("a"), decision("b", complete=False)]) == 0.5


def test_events_and_decisions_are_matched_in_any_order() -> None:
    subjects = Subjects(clock=lambda: 7.0)
    subjects.event("a", 100.0)
    subjects.decision(decision("a"), 100.5)
    subjects.decision(decision("b"), 101.0)
    subjects.event("b", 100.0)
    subjects.decision(decision("a", 1), 200.0)
    subjects.decision(decision("never seen"), 1.0)
    assert subjects.latencies.since(0) == [(7.0, 500.0), (7.0, 1000.0)]
    assert [taken.subject_id for taken in subjects.decided.latest(9)] == ["never seen", "a", "b", "a"]


def state(*, event: bytes | None = b"event", deadline: float = 45.0, is_closed: bool = False) -> DecisionState:
    return DecisionState(
        subject_id="a",
        event=event,
        expected=["tip"],
        evidence=[],
        first_seen_at=NOW,
        expires_at=NOW + timedelta(seconds=deadline),
        outcome=Outcome(revision=0, action="standard", complete=True) if is_closed else None,
    )


def test_what_is_open_has_an_event_and_no_outcome() -> None:
    subjects = Subjects()
    assert (subjects.open, subjects.deadline) == (0, 30.0)
    for subject, record in [
        ("waits", state(event=None)),
        ("opens", state()),
        ("closes", state()),
        ("closes", state(is_closed=True, deadline=3600)),
        ("forgotten", state()),
        ("forgotten", None),
    ]:
        subjects.state(subject, record)
    assert (subjects.open, subjects.deadline) == (1, 45.0)


def test_as_many_partitions_are_followed_as_can_be_read() -> None:
    most = MOST_A_SECOND
    assert numbers_to_follow(6, 6, 0.0) == 6
    assert numbers_to_follow(6, 6, most / 6) == 6
    assert numbers_to_follow(6, 6, most / 4) == 3
    assert numbers_to_follow(3, 6, most / 5) == 3, "a little less changes nothing"
    assert numbers_to_follow(3, 6, most / 10) == 6
    assert numbers_to_follow(1, 6, 2 * most) == 0
    assert numbers_to_follow(0, 6, 2 * most) == 0
    assert numbers_to_follow(0, 6, most / 2) == 1
