"""Records on a terminal, as a stream that reads like a table and fits 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from braidstream.cli.records import Record, Undecoded, header_text, key_text, printable, word
from braidstream.streaming.dead_letters import PREFIX

_BYTES_SHOWN = 120


class Screen:
    """Shows a record as one line of where it is and what its key is, with its fields below.

    Fields that repeat the key are left out, and numbers are rounded.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_headed = False

    def show(self, record: Record) -> None:
        """Print one record, the first one below the columns' names."""
        if not self._is_headed:
            self._print(Text(f"{'TIME (UTC)':23}  {'PART/OFFSET':>11}  KEY", style="dim"))
            self._is_headed = True
        time = word(record.timestamp) if record.timestamp is not None else "-"
        head = Text(f"{time:23}  {f'{record.partition}/{record.offset}':>11}  ")
        self._print(head.append(printable(key_text(record)), style="bold"))
        for line in _body(record):
            self._console.print(Padding(line, (0, 0, 0, 4), expand=False))

    def _print(self, line: Text) -> None:
        self._console.print(line, overflow="fold")


def _body(record: Record) -> Iterator[Text]:
    value = record.value
    if isinstance(value, Undecoded):
        yield Text(printable(f"undecoded: {value.reason}"), style="red")
        yield Text(f"{len(value.value)} bytes: {value.value[:_BYTES_SHOWN]!r}")
    elif isinstance(value, dict):
        key = key_text(record)
        yield _pairs({name: word(item) for name, item in value.items() if item != key})
    else:
        yield Text(printable(word(value)))
    errors = {n.removeprefix(PREFIX): header_text(v) for n, v in record.headers.items() if n.startswith(PREFIX)}
    others = {name: header_text(v) for name, v in record.headers.items() if not name.startswith(PREFIX)}
    if errors:
        yield _pairs(errors, "red")
    if others:
        yield _pairs(others, "dim")


def _pairs(pairs: dict[str, str], style: str = "") -> Text:
    return Text("  ").join(
        Text.assemble((f"{printable(name)}=", "dim"), (printable(word), style)) for name, word in pairs.items()
    )
