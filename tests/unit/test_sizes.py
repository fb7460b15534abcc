"""A record that is too large is named, and so is the setting that takes it."""

from __future__ import annotations

import pytest

from braidstream.streaming.ports import Headers
from braidstream.streaming.sizes import size_of, too_large

HEADERS: Headers = [("source.topic", b"rides"), ("source.partition", b"3"), ("source.offset", b"17")]
LETTER: Headers = [
    ("source.topic", b"of the record itself"),
    ("null", None),
    ("__connect.errors.topic", b"rides"),
    ("__connect.errors.partition", b"4"),
    ("__connect.errors.offset", b"18"),
    ("__connect.errors.exception.message", b"why"),
]


def test_the_largest_record_of_the_topic_that_refused_is_named() -> None:
    records = [
        ("predictions", 3, b"small", b"x", HEADERS),
        ("predictions", 3, b"large", b"x" * 500, HEADERS),
        ("other_predictions", 3, b"larger", b"x" * 5000, HEADERS),
    ]
    said = str(too_large(records, "ProduceRequest for predictions [3] with 2 message(s) failed"))
    assert "its topic predictions: the one with the key b'large', made from rides [3] offset 17, was refused" in said
    size = 5 + 500 + sum(len(name) + len(value or b"") for name, value in HEADERS)
    assert f"a record of {size} bytes" in said
    assert f"Raise max.message.bytes of predictions to {size + 1024} or more" in said


def test_a_dead_letter_is_named_by_the_record_that_it_holds() -> None:
    said = str(too_large([("dead_letters", 4, None, None, LETTER)], "dead_letters [4]"))
    assert "the one with the key None, made from rides [4] offset 18, was refused" in said


@pytest.mark.parametrize("headers", [[], [("trace", b"x")]], ids=["none", "others"])
def test_a_record_that_does_not_say_what_it_was_made_from_is_named_by_its_key(headers: Headers) -> None:
    said = str(too_large([("decisions", 4, b"ride-1", b"x", headers)], "decisions [4]"))
    assert "the one with the key b'ride-1' was refused" in said


def test_names_values_and_what_is_null_count() -> None:
    assert size_of(("t", 0, b"key", None, [("name", b"value"), ("null", None)])) == 3 + 4 + 5 + 4
