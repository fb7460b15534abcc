"""Records as `braidstream tail` shows them: whatever they hold, they are shown."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE, Message
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from braidstream.avro import AvroSchema, LocalSchemas, write
from braidstream.cli.records import Decoder, Undecoded, as_json, as_line
from braidstream.cli.screen import Screen
from braidstream.errors import SettingsError
from braidstream.streaming.dead_letters import dead_letter
from rides.pipeline import RIDES

SCHEMA = AvroSchema.from_text(
    json.dumps(
        {
            "type": "record",
            "name": "Measured",
            "fields": [
                {"name": "id", "type": "string"},
                {"name": "value", "type": "double"},
                {"name": "raw", "type": ["null", "bytes"], "default": None},
                {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
                {"name": "parts", "type": {"type": "array", "items": "double"}, "default": []},
            ],
        }
    )
)
AT = datetime(2026, 3, 4, 5, 6, 7, 89_000, UTC)
MILLISECONDS = round(AT.timestamp() * 1000)


NESTED = AvroSchema.from_text(
    '{"type": "record", "name": "Nested", "fields": [{"name": "inside", "type": ["null", "Nested"]}]}'
)


class OneSchema:
    """A schema source that knows `SCHEMA` as 7 and `NESTED` as 9, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def id_of(self, event_type: object, subject: str) -> int:
        raise SettingsError("tail registers nothing")

    def schema(self, schema_id: int) -> AvroSchema | None:
        self.asked += 1
        return {7: SCHEMA, 9: NESTED}.get(schema_id)


def measured(**fields: Any) -> bytes:
    return write(7, SCHEMA, {"id": "a", "value": 1.5, "at": AT, "raw": None, "parts": [], **fields})


def message(value: bytes | None, key: bytes | None = b"a", headers: Sequence[tuple[str, bytes | None]] = ()) -> Message:
    at = (TIMESTAMP_CREATE_TIME, MILLISECONDS)
    return Message(topic="t", partition=3, offset=42, key=key, value=value, headers=list(headers), timestamp=at)


def shown(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(as_json(Decoder(OneSchema())(message)), allow_nan=False))
    return found


def on_screen(*messages: Message) -> str:
    out = io.StringIO()
    screen = Screen(Console(file=out, width=80, force_terminal=True, color_system=None, highlight=False))
    for one in messages:
        screen.show(Decoder(OneSchema())(one))
    return out.getvalue()


def test_a_record_as_json() -> None:
    assert shown(message(measured(raw=b"\x00\xff", parts=[1.0]), headers=[("traceparent", b"00-1")])) == {
        "partition": 3,
        "offset": 42,
        "timestamp": "2026-03-04T05:06:07.089+00:00",
        "key": "a",
        "headers": {"traceparent": "00-1"},
        "value": {"id": "a", "value": 1.5, "raw": "AP8=", "at": "2026-03-04T05:06:07.089000+00:00", "parts": [1.0]},
    }


def test_a_tombstone_has_a_null_value() -> None:
    record = shown(message(None))
    assert (record["value"], "undecoded" in record) == (None, False)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"hello", "not in Confluent's wire format"),
        (b"", "not in Confluent's wire format"),
        (
            write(8, SCHEMA, {"id": "a", "value": 1, "at": AT, "raw": None, "parts": []}),
            "schema id 8 is not known: it is a registry's",
        ),
        (b"\x00\x00\x00\x00\x09\x02\x00", "schema id 9 is not safe to be read: Nested is nested in itself"),
        (measured()[:-3], "not readable as Measured"),
        (measured() + b"!", "1 bytes are left"),
    ],
)
def test_what_cannot_be_decoded_is_shown_with_its_bytes_and_why(value: bytes, reason: str) -> None:
    record = shown(message(value))
    assert reason in record["undecoded"]["reason"]
    assert base64.b64decode(record["undecoded"]["base64"]) == value
    assert "value" not in record
    assert record["undecoded"]["base64"] in as_line(Decoder(OneSchema())(message(value)))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks_are_strings(number: float) -> None:
    assert shown(message(measured(value=number, parts=[number])))["value"]["parts"] == [str(number)]


def test_keys_and_headers_that_are_no_text_are_base64() -> None:
    record = shown(message(measured(), key=b"\xff", headers=[("h", b"\xfe"), ("empty", None)]))
    assert record["key"] == {"base64": "/w=="}
    assert record["headers"] == {"h": {"base64": "/g=="}, "empty": ""}


@pytest.mark.parametrize(
    "timestamp", [(TIMESTAMP_NOT_AVAILABLE, 0), (TIMESTAMP_CREATE_TIME, MILLISECONDS * 1000), (1, 2**63 - 1)]
)
def test_a_record_without_a_timestamp_or_with_one_that_is_no_time_has_none(timestamp: tuple[int, int]) -> None:
    timeless = Message(topic="t", partition=0, offset=0, value=None, timestamp=timestamp)
    assert shown(timeless)["timestamp"] is None


def test_a_schema_is_asked_for_once_and_nothing_is_registered() -> None:
    schemas = OneSchema()
    decode = Decoder(schemas)
    assert [decode(message(measured())).value["id"] for _ in range(3)] == ["a"] * 3
    assert schemas.asked == 1
    for _ in range(3):
        assert decode(message(b"\x00\x00\x00\x00\x08")).value.reason.startswith("schema id 8 is not known")
    assert schemas.asked == 2


def test_a_dead_letter_shows_where_it_came_from_and_why() -> None:
    source = message(b"junk", key=b"ride-1")
    _, _, key, value, raw = dead_letter("dead_letters", source, ValueError("no ride"), "duration")
    letter = message(value, key, raw)
    headers = shown(letter)["headers"]
    assert headers["__connect.errors.exception.message"] == "no ride"
    assert headers["__connect.errors.offset"] == "42"
    text = on_screen(letter)
    assert "ride-1" in text
    assert "exception.message=no ride" in text
    assert "undecoded: not in Confluent's wire format" in text
    assert "b'junk'" in text


def test_a_line_has_its_parts_between_tabs() -> None:
    line = as_line(Decoder(OneSchema())(message(measured(), headers=[("h", b"1")])))
    at, where, key, value, headers = line.split("\t")
    assert (at, where, key) == ("2026-03-04T05:06:07.089+00:00", "3/42", "a")
    assert json.loads(value)["value"] == 1.5
    assert json.loads(headers) == {"h": "1"}


def test_the_screen_fits_80_columns() -> None:
    key = "6f1c2a44-6f0e-5a3c-9d3b-0a4f2b8f7c11"
    text = on_screen(message(measured(id=key, value=12.3456789, parts=[0.1] * 40), key=key.encode()))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "TIME (UTC)               PART/OFFSET  KEY"
    assert lines[1] == f"2026-03-04 05:06:07.089         3/42  {key}"
    assert lines[2].startswith("    value=12.3457  raw=null  at=2026-03-04 05:06:07.089")
    assert text.count(key) == 1


def test_the_columns_are_named_once() -> None:
    assert on_screen(message(measured()), message(None)).count("KEY") == 1


ANYTHING = st.one_of(st.binary(), st.just(b"\x1b]0;gotcha\x07\x1b[2J"), st.text().map(lambda text: text.encode()))


@given(
    value=st.one_of(st.none(), ANYTHING, ANYTHING.map(lambda body: b"\x00\x00\x00\x00\x07" + body)),
    key=st.one_of(st.none(), ANYTHING),
    headers=st.lists(st.tuples(st.text(min_size=1), st.one_of(st.none(), ANYTHING)), max_size=3),
)
def test_any_record_is_shown_and_commands_no_terminal(
    value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    headers = [(name.replace("\x00", ""), header) for name, header in headers]
    record = message(value, key, headers)
    assert json.loads(json.dumps(as_json(Decoder(OneSchema())(record)), allow_nan=False))["offset"] == 42
    line = as_line(Decoder(OneSchema())(record))
    assert line.replace("\t", "").isprintable()
    assert "\x1b" not in on_screen(record).replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "")


@given(st.text(max_size=200), st.floats(), st.one_of(st.none(), st.binary(max_size=50)))
def test_whatever_avro_holds_becomes_json(text: str, number: float, raw: bytes | None) -> None:
    value = shown(message(measured(id=text, value=number, raw=raw)))["value"]
    assert value["id"] == text
    assert value["raw"] == (None if raw is None else base64.b64encode(raw).decode())


def test_the_ids_of_the_repo_are_known_without_a_registry() -> None:
    ride = RIDES.subjects.event_type
    datum = {
        "ride_id": "r1",
        "pickup_at": datetime(2023, 2, 1, 12, 30),  # noqa: DTZ001 - TLC's times are local
        "pickup_zone": 999,
        "dropoff_zone": 2,
        "trip_distance": None,
        "passenger_count": 1,
    }
    value = write(ride.latest.local_id, ride.latest, datum)
    record = Decoder(LocalSchemas(ride))(message(value))
    assert not isinstance(record.value, Undecoded)
    assert as_json(record)["value"]["pickup_zone"] == 999
    assert as_json(record)["value"]["pickup_at"] == "2023-02-01T12:30:00"
