"""Rows of text, for people and for pipes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from braidstream.cli.records import printable

_SHOWN = 200
_ROWS_LOOKED_AT = 200


def lines(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table where stdout is a terminal; elsewhere the rows alone, their parts separated by tabs."""
    return table(columns, rows) if sys.stdout.isatty() else ("\t".join(map(printable, row)) for row in rows)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines for a terminal, as wide as the first rows need; the last column is cut short."""
    left = iter(rows)
    first = [columns, *islice(left, _ROWS_LOOKED_AT)]
    widths = [max(len(printable(row[column])) for row in first) for column in range(len(columns) - 1)]
    for row in chain(first, left):
        cells = [printable(cell).ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, short(row[-1])])


def short(text: str) -> str:
    """A text as it is printed on a terminal, cut where it is very long."""
    shown = printable(text)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
