"""`braidstream dlq`: which dead letters are meant, how they are shown, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import click
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Message, Producer

from braidstream.avro import write
from braidstream.cli import letter_views, main, tables
from braidstream.cli.letters import Selection, place, time
from braidstream.cli.records import Record, Undecoded
from braidstream.cli.resending import Outlook, Step
from braidstream.embedded import EmbeddedBroker, appear
from braidstream.errors import PoisonRecord
from braidstream.streaming.dead_letters import PREFIX, REPLAY, dead_letter
from braidstream.streaming.replay import Letter, Place
from rides.pipeline import RIDES
from tests import command_line

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
LETTER = Letter(
    place=Place(3, 17),
    written_at=NOON,
    key=b"ride-1",
    value=b"\xff",
    headers=[("trace", b"\x01"), (f"{REPLAY}attempt", b"1"), (f"{PREFIX}stage", b"TRANSFORMATION")],
    topic="x.ride_started",
    partition=3,
    offset=42,
    group="x.duration",
    stage="TRANSFORMATION",
    exception="builtins.ValueError",
    message="zone 74 is\nclosed",
    stack_trace='Traceback:\n  File "x.py"',
    attempts=1,
)
UNKNOWN = Letter(Place(0, 0), None, None, None, [], "", None, None, "", "", "", "", "", None)
SENT_AT = NOON + timedelta(minutes=5)


# The choice


@pytest.mark.parametrize(
    ("selection", "is_taken"),
    [
        (Selection(), True),
        (Selection(groups=("duration", "x.duration")), True),
        (Selection(groups=("tip", "x.tip")), False),
        (Selection(reason="valueerror"), True),
        (Selection(reason="transform"), True),
        (Selection(reason="zone 74"), True),
        (Selection(reason="x.duration"), False),
        (Selection(since=NOON), True),
        (Selection(since=NOON + timedelta(milliseconds=1)), False),
        (Selection(until=NOON), False),
        (Selection(until=NOON + timedelta(milliseconds=1)), True),
        (Selection(places=frozenset({Place(3, 17), Place(0, 0)})), True),
        (Selection(places=frozenset({Place(3, 18)})), False),
        (Selection(groups=("x.duration",), reason="zone", since=NOON, places=frozenset({Place(3, 17)})), True),
        (Selection(groups=("x.tip",), reason="zone", since=NOON, places=frozenset({Place(3, 17)})), False),
    ],
)
def test_everything_that_is_given_has_to_apply(selection: Selection, is_taken: bool) -> None:
    assert selection.takes(LETTER) is is_taken


def test_a_letter_without_a_time_is_in_no_span_of_time() -> None:
    assert Selection().takes(UNKNOWN)
    assert not Selection(since=NOON).takes(UNKNOWN)
    assert not Selection(until=NOON).takes(UNKNOWN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:00", NOON),
        ("2026-01-31 12:00:00.5", NOON + timedelta(milliseconds=500)),
        ("2026-01-31T13:00+01:00", NOON),
        ("2026-01-31T12:00Z", NOON),
    ],
)
def test_a_time_is_utc_unless_it_says_otherwise(text: str, expected: datetime) -> None:
    found = time(text)
    assert (found, found.tzinfo) == (expected, UTC)


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86_400), ("0s", 0)])
def test_a_span_is_how_long_ago_a_time_was(text: str, seconds: int) -> None:
    before = datetime.now(UTC)
    ago = time(text) + timedelta(seconds=seconds)
    assert before <= ago <= datetime.now(UTC)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2", "h", "-2h", "2w", "999999999d", "2026-13-01", "0001-01-01T00:00+01:00"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is neither a time such as"):
        time(text)


def test_what_is_no_place_is_refused() -> None:
    assert place("3:17") == Place(3, 17)
    with pytest.raises(click.BadParameter, match="is not of the form PARTITION:OFFSET"):
        place("3/17")


# The views


def test_a_row_says_where_from_and_why() -> None:
    assert letter_views.as_row(LETTER, {}) == (
        "2026-01-31 12:00:00",
        "3:17",
        "x.ride_started 3:42",
        "x.duration",
        "TRANSFORMATION",
        "1",
        "-",
        "ValueError: zone 74 is\nclosed",
    )
    assert letter_views.as_row(LETTER, {Place(3, 17): SENT_AT})[6] == "2026-01-31 12:05:00"
    assert letter_views.as_row(UNKNOWN, {}) == ("-", "0:0", "- -:-", "-", "-", "?", "-", "not known")


def test_a_letter_as_json() -> None:
    said = json.loads(json.dumps(letter_views.as_json(LETTER, {Place(3, 17): SENT_AT})))
    assert said == {
        "letter": "3:17",
        "written_at": "2026-01-31T12:00:00.000+00:00",
        "topic": "x.ride_started",
        "partition": 3,
        "offset": 42,
        "key": "ride-1",
        "group": "x.duration",
        "stage": "TRANSFORMATION",
        "exception": "builtins.ValueError",
        "message": "zone 74 is\nclosed",
        "attempts": 1,
        "replayed": True,
        "replayed_at": "2026-01-31T12:05:00.000+00:00",
    }
    unknown = letter_views.as_json(UNKNOWN, {})
    assert {name for name, value in unknown.items() if value is not None} == {"letter", "replayed"}


def test_counts_are_by_group_stage_and_exception_the_largest_first() -> None:
    later = LETTER._replace(place=Place(0, 1), written_at=NOON + timedelta(hours=1))
    other = LETTER._replace(place=Place(0, 2), group="x.tip")
    timeless = LETTER._replace(place=Place(0, 3), written_at=None)
    first, second, third = letter_views.counted([UNKNOWN, LETTER, other, timeless, later], {LETTER.place: SENT_AT})
    assert first.as_row() == (
        *("3", "1", "2026-01-31 12:00:00", "2026-01-31 13:00:00"),
        *("x.duration", "TRANSFORMATION", "builtins.ValueError"),
    )
    assert {second.group, third.group} == {"x.tip", ""}
    unknown = min((second, third), key=lambda count: count.group)
    assert unknown.as_row() == ("1", "0", "-", "-", "-", "-", "-")
    assert first.as_json() | {"letters": 3, "replayed": 1, "group": "x.duration"} == first.as_json()


def test_a_table_is_aligned_and_cuts_reasons_short() -> None:
    rows = [("a", "b", "short"), ("longer", "b", "x" * 1000), ("a", "\x1b[2J", "last")]
    assert list(tables.table(("ONE", "TWO", "REASON"), rows)) == [
        "ONE     TWO      REASON",
        "a       b        short",
        f"longer  b        {'x' * 200}…",
        "a       \\x1b[2J  last",
    ]
    assert list(tables.table(("ONE", "TWO"), [])) == ["ONE  TWO"]


def test_everything_of_a_letter() -> None:
    record = Record(3, 17, NOON, b"ride-1", {}, {"ride_id": "ride-1", "pickup_zone": 74})
    lines = list(letter_views.in_full(LETTER, {}, record))
    assert lines == [
        "letter      3:17, written at 2026-01-31 12:00:00 UTC",
        "from        x.ride_started 3:42",
        "group       x.duration",
        "stage       TRANSFORMATION",
        "exception   builtins.ValueError",
        "message     zone 74 is\\nclosed",
        "attempts    1",
        "replayed    -",
        "key         ride-1",
        "header      trace = \\x01",
        "header      braidstream.replay.attempt = 1",
        "value       {",
        '  "ride_id": "ride-1",',
        '  "pickup_zone": 74',
        "}",
        "stack trace",
        "  Traceback:",
        '    File "x.py"',
    ]


def test_a_value_that_cannot_be_decoded_is_shown_as_bytes_with_the_reason() -> None:
    record = Record(3, 17, NOON, None, {}, Undecoded("not in Confluent's wire format", b"hello\x00" + b"x" * 1000))
    lines = list(letter_views.in_full(LETTER._replace(stack_trace=""), {}, record))
    assert "key         null" in lines
    start = lines.index("value       not in Confluent's wire format")
    assert lines[start + 1].startswith("  0000  68 65 6c 6c 6f 00 78 ")
    assert lines[start + 1].endswith("hello\\x00" + "x" * 26)
    assert lines[-1] == "  … of 1006 bytes; --json has them all"


def test_a_replay_is_summed_up_by_where_to_and_for_whom() -> None:
    outlook = Outlook()
    assert list(outlook.lines()) == ["Nothing to be sent back."]
    to_send = Step(LETTER.place, LETTER, None, was_sent=False)
    for step in (
        to_send,
        to_send,
        Step(LETTER.place, LETTER, "it was sent back already", was_sent=True),
        Step(LETTER.place, LETTER, "there is no topic x.ride_started", was_sent=False),
        Step(Place(9, 9), None, "there is no dead letter", was_sent=False),
    ):
        outlook.add(step)
    assert list(outlook.lines()) == [
        "2 to be sent back to x.ride_started for x.duration",
        "1 left out: sent back already",
        "2 left out: cannot be sent back",
    ]
    assert str(to_send) == "3:17  to x.ride_started [3] for x.duration, attempt 2: ValueError: zone 74 is\\nclosed"


# What is refused


def dlq(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["dlq", *arguments], prog_name="braidstream")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["replay", "--yes"], "choose with --group, --reason, --since, --until or --at, or say --all"),
        (["replay", "--all", "--group", "tip", "--yes"], "--all goes with no filter"),
        (["replay", "--all"], "there is no terminal to ask on: say --yes, or look first with --dry-run"),
        (["replay", "--all", "--yes", "--max-attempts", "0"], "0 is not in the range"),
        (["list", "--since", "soon"], "'soon' is neither a time"),
        (["list", "--at", "17"], "'17' is not of the form PARTITION:OFFSET"),
        (["show"], "Missing argument"),
        (["drop"], "No such command 'drop'"),
    ],
)
def test_wrong_arguments_get_a_sentence(arguments: list[str], sentence: str) -> None:
    result = dlq(*arguments)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())


# On the embedded broker


@pytest.fixture(scope="module")
def settings() -> Iterator[dict[str, str]]:
    """An embedded broker with three dead letters: an event for two groups, and what is no event."""
    with EmbeddedBroker() as broker:
        appear(Producer({"bootstrap.servers": broker.bootstrap_servers}), ["x.ride_started", "x.dead_letters"])
        found = {**broker.environment, "TOPIC_PREFIX": "x.", "LOG_FORMAT": "console"}
        schema = RIDES.subjects.event_type.latest
        fields = {"pickup_zone": 1, "dropoff_zone": 2, "pickup_at": 0, "trip_distance": 1.5, "passenger_count": None}
        event = write(schema.local_id, schema, {**fields, "ride_id": "ride-1"})
        source = Message(topic="x.ride_started", partition=1, offset=5, key=b"ride-1", value=event)
        poison = Message(topic="x.ride_started", partition=2, offset=6, key=None, value=b"hello")
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
        for record, error, group in (
            (source, ValueError("zone 1"), "x.duration"),
            (source, KeyError("zone 1"), "x.tip"),
            (poison, PoisonRecord("VALUE_CONVERTER", "no Avro"), "x.tip"),
        ):
            topic, partition, key, value, headers = dead_letter("x.dead_letters", record, error, group)
            producer.produce(topic, value, key, partition=partition, headers=list(headers))
        assert producer.flush(10) == 0
        yield found


def listed(settings: dict[str, str], *arguments: str) -> set[str]:
    done = command_line.run("dlq", "list", "--json", *arguments, settings=settings)
    assert done.returncode == 0, done.stderr
    return {json.loads(line)["letter"] for line in done.stdout.splitlines()}


def test_letters_are_listed_and_chosen(settings: dict[str, str]) -> None:
    assert listed(settings) == {"1:0", "1:1", "2:0"}
    assert listed(settings, "--group", "tip") == listed(settings, "--group", "x.tip") == {"1:1", "2:0"}
    assert listed(settings, "--reason", "zone") == {"1:0", "1:1"}
    assert listed(settings, "--at", "1:1", "--at", "2:0", "--reason", "no avro") == {"2:0"}
    assert listed(settings, "--at", "1:99") == set()
    assert listed(settings, "--since", "1h") == {"1:0", "1:1", "2:0"}
    assert listed(settings, "--until", "1h") == set()


def test_a_pipe_gets_lines_with_tabs(settings: dict[str, str]) -> None:
    done = command_line.run("dlq", "list", "--reason", "ValueError", settings=settings)
    parts = done.stdout.rstrip("\n").split("\t")
    assert parts[1:] == ["1:0", "x.ride_started 1:5", "x.duration", "TRANSFORMATION", "0", "-", "ValueError: zone 1"]
    summary = command_line.run("dlq", "list", "--summary", "--json", "--group", "tip", settings=settings)
    counts = [json.loads(line) for line in summary.stdout.splitlines()]
    assert {(count["letters"], count["exception"]) for count in counts} == {
        (1, "builtins.KeyError"),
        (1, "braidstream.errors.PoisonRecord"),
    }


def test_one_letter_is_shown_decoded_or_as_bytes(settings: dict[str, str]) -> None:
    decoded = command_line.run("dlq", "show", "1:0", settings=settings)
    assert decoded.returncode == 0, decoded.stderr
    assert '  "ride_id": "ride-1",' in decoded.stdout.splitlines()
    assert "ValueError: zone 1" in decoded.stdout
    undecoded = command_line.run("dlq", "show", "2:0", "--json", settings=settings)
    said = json.loads(undecoded.stdout)
    assert said["undecoded"]["base64"] == "aGVsbG8="
    assert (said["letter"], said["partition"], said["offset"], said["stack_trace"]) == ("2:0", 2, 6, None)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "1:99"], "Error: x.dead_letters has no record at 1:99, or no more"),
        (["show", "77:0"], "Error: 77:0: x.dead_letters has the partitions 0 to 3"),
        (["list", "--at", "77:0"], "Error: 77:0: x.dead_letters has the partitions 0 to 3"),
        (["replay", "--all", "--yes"], "Error: the embedded broker keeps no transactions"),
    ],
)
def test_what_cannot_be_done_is_told(settings: dict[str, str], arguments: list[str], sentence: str) -> None:
    done = command_line.run("dlq", *arguments, settings=settings)
    assert done.returncode == 2
    assert done.stderr.startswith(sentence)


def test_a_missing_topic_is_told(settings: dict[str, str]) -> None:
    done = command_line.run("dlq", "list", settings={**settings, "TOPIC_PREFIX": "y."})
    assert done.returncode == 2
    assert done.stderr.startswith("Error: there is no topic y.dead_letters at ")
