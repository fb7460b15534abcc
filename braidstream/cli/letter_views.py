"""Dead letters as people and programs read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from braidstream.cli.letters import Replayed
from braidstream.cli.records import (
    Record,
    Undecoded,
    header_text,
    iso,
    key_text,
    plain,
    printable,
    text_or_base64,
    to_seconds,
)
from braidstream.streaming.dead_letters import PREFIX
from braidstream.streaming.replay import Letter

COLUMNS: Sequence[str] = ("TIME (UTC)", "LETTER", "FROM", "GROUP", "STAGE", "ATTEMPTS", "REPLAYED", "REASON")
COUNT_COLUMNS: Sequence[str] = ("LETTERS", "REPLAYED", "FIRST (UTC)", "LAST (UTC)", "GROUP", "STAGE", "EXCEPTION")

_BYTES_SHOWN = 512
_BYTES_A_LINE = 32


@dataclass
class Count:
    """Dead letters of one kind: how many, how many of them were sent back, and when the first and last were written."""

    group: str
    stage: str
    exception: str
    letters: int = 0
    replayed: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def add(self, letter: Letter, *, is_replayed: bool) -> None:
        """Count one more."""
        self.letters += 1
        self.replayed += is_replayed
        if letter.written_at is not None:
            self.first = min(self.first or letter.written_at, letter.written_at)
            self.last = max(self.last or letter.written_at, letter.written_at)

    def as_row(self) -> tuple[str, ...]:
        """One text for each of `COUNT_COLUMNS`."""
        numbers, times = (str(self.letters), str(self.replayed)), (to_seconds(self.first), to_seconds(self.last))
        return (*numbers, *times, self.group or "-", self.stage or "-", self.exception or "-")

    def as_json(self) -> dict[str, Any]:
        """The same for `json.dumps`."""
        names = {"group": self.group or None, "stage": self.stage or None, "exception": self.exception or None}
        counts = {"letters": self.letters, "replayed": self.replayed}
        return {**counts, "first": iso(self.first), "last": iso(self.last), **names}


def counted(letters: Iterable[Letter], replayed: Replayed) -> list[Count]:
    """Counts by group, stage and exception, the largest first."""
    counts: dict[tuple[str, str, str], Count] = {}
    for letter in letters:
        kind = letter.group, letter.stage, letter.exception
        counts.setdefault(kind, Count(*kind)).add(letter, is_replayed=letter.place in replayed)
    return sorted(counts.values(), key=lambda count: -count.letters)


def as_row(letter: Letter, replayed: Replayed) -> tuple[str, ...]:
    """One text for each of `COLUMNS`."""
    return (
        to_seconds(letter.written_at),
        str(letter.place),
        _origin(letter),
        letter.group or "-",
        letter.stage or "-",
        _attempts(letter),
        _sent(letter, replayed),
        reason(letter),
    )


def as_json(letter: Letter, replayed: Replayed) -> dict[str, Any]:
    """The same and the key, for `json.dumps`; what is not known is null."""
    return {
        "letter": str(letter.place),
        "written_at": iso(letter.written_at),
        "topic": letter.topic or None,
        "partition": letter.partition,
        "offset": letter.offset,
        "key": text_or_base64(letter.key),
        "group": letter.group or None,
        "stage": letter.stage or None,
        "exception": letter.exception or None,
        "message": letter.message or None,
        "attempts": letter.attempts,
        "replayed": letter.place in replayed,
        "replayed_at": iso(replayed.get(letter.place)),
    }


def in_full(letter: Letter, replayed: Replayed, record: Record) -> Iterator[str]:
    """Everything of a dead letter, in lines."""
    facts = {
        "letter": f"{letter.place}, written at {to_seconds(letter.written_at)} UTC",
        "from": _origin(letter),
        "group": letter.group or "-",
        "stage": letter.stage or "-",
        "exception": letter.exception or "-",
        "message": letter.message or "-",
        "attempts": _attempts(letter),
        "replayed": _sent(letter, replayed),
        "key": key_text(record),
    }
    for name, fact in facts.items():
        yield f"{name:12}{printable(fact)}"
    for name, value in letter.headers:
        if not name.startswith(PREFIX):
            yield f"{'header':12}{printable(name)} = {printable(header_text(value or b''))}"
    yield from _value(record.value)
    if letter.stack_trace:
        yield "stack trace"
        yield from (f"  {printable(line)}" for line in letter.stack_trace.splitlines())


def reason(letter: Letter) -> str:
    """Exception and message."""
    return f"{letter.exception.removeprefix('builtins.')}: {letter.message}" if letter.exception else "not known"


def _origin(letter: Letter) -> str:
    """Topic, partition and offset; no offset where it was no record's fault."""
    partition, offset = ("-" if number is None else number for number in (letter.partition, letter.offset))
    return f"{letter.topic or '-'} {partition}:{offset}"


def _attempts(letter: Letter) -> str:
    return str(letter.attempts) if letter.attempts is not None else "?"


def _sent(letter: Letter, replayed: Replayed) -> str:
    return to_seconds(replayed[letter.place]) if letter.place in replayed else "-"


def _value(value: Any) -> Iterator[str]:
    if not isinstance(value, Undecoded):
        text = json.dumps(plain(value), indent=2, ensure_ascii=False)
        yield from map(printable, f"{'value':12}{text}".split("\n"))
        return
    size = len(value.value)
    yield f"{'value':12}{printable(value.reason)}"
    for start in range(0, min(size, _BYTES_SHOWN), _BYTES_A_LINE):
        part = value.value[start : start + _BYTES_A_LINE]
        yield f"  {start:04x}  {part.hex(' '):{3 * _BYTES_A_LINE}}{printable(part.decode('latin-1'))}"
    if size > _BYTES_SHOWN:
        yield f"  … of {size} bytes; --json has them all"
