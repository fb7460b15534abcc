"""A view as lines of text, for any size of terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from braidstream.cli.records import printable
from braidstream.dashboard.view import View
from schemas.decision import Decision

_SIDE_BY_SIDE = 72
"""Columns from which topics and groups stand beside each other."""

_WIDE = 110
"""Columns from which subjects and times are shown in full."""

_TALL = 20
"""Lines from which there is room for what might be said."""

_GAP = 3
_FEWEST_DECISIONS = 2
"""Lines that are kept for them when there is little room, their heading included."""


class Dashboard:
    """A view as rich prints it: as large as the terminal, or the console's options, at that moment."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines."""
        yield from lines(self._view, options.max_width, options.height or console.height)


class _Table(NamedTuple):
    """Rows of a name and of numbers; `widths` are those of the numbers, and a style is for the whole row."""

    heading: tuple[str, ...]
    rows: Sequence[tuple[tuple[str, ...], str]]
    widths: tuple[int, ...]

    @property
    def longest(self) -> int:
        return max(len(cells[0]) for cells, _ in [(self.heading, ""), *self.rows])

    @property
    def room(self) -> int:
        """Columns of everything but the name."""
        return sum(1 + width for width in self.widths)

    def lines(self, name: int, most: int) -> list[Text]:
        """At most so many lines, their names in so many columns."""
        rows = list(self.rows)
        hidden = 1 + len(rows) - most
        if hidden > 0:
            rows = rows[: max(0, most - 2)]
        found = [self._line(self.heading, name, "dim"), *(self._line(cells, name, style) for cells, style in rows)]
        if hidden > 0:
            found.append(_fit(f"… {len(self.rows) - len(rows)} more", name + self.room, "dim"))
        return found[:most]

    def _line(self, cells: tuple[str, ...], name: int, style: str) -> Text:
        line = _fit(cells[0], name, style)
        for cell, width in zip(cells[1:], self.widths, strict=True):
            line.append(f" {cell:>{width}}")
        return line


def lines(view: View, width: int, height: int) -> list[Text]:
    """The view in at most so many lines of so many columns."""
    topics, groups = _topics(view), _groups(view)
    head = [_title(view, width)]
    if height >= _TALL or view.note or view.problem:
        head += _message(view, width, 2 if height >= _TALL else 1)
    figures = _fit(_figures(view), width)
    room = height - len(head) - 1
    most = max(2, room - min(1 + len(view.decisions), _FEWEST_DECISIONS))
    is_wide = width >= _SIDE_BY_SIDE
    tables = _beside(topics, groups, width, most) if is_wide else _below(topics, groups, width, most)
    left = room - len(tables)
    blank = [Text("")] if left > 2 + _FEWEST_DECISIONS else []
    decided = _decisions(view.decisions[: max(0, left - 2 * len(blank) - 1)], width)
    return [*head, *tables, *blank, figures, *blank, *decided][: max(0, height)]


def _title(view: View, width: int) -> Text:
    time = f"{view.at:%Y-%m-%d %H:%M:%S} UTC" if width >= _SIDE_BY_SIDE else f"{view.at:%H:%M:%S} UTC"
    return _fit(view.title, max(0, width - len(time) - 1), "bold").append(f" {time}", "dim")


def _message(view: View, width: int, most: int) -> list[Text]:
    """A line, or as many as are needed and may be."""
    text, style = (view.problem, "bold red") if view.problem is not None else (view.note or "", "yellow")
    wrapped = wrap(text, max(2, width), max_lines=most, placeholder="…") or [""]
    return [_fit(line, width, style) for line in wrapped]


def _topics(view: View) -> _Table:
    rows = [
        (
            (
                topic.name,
                _rate(topic.rate),
                "-" if topic.total is None else f"{topic.total:,}",
            ),
            "bold red" if topic.is_alarming else "",
        )
        for topic in view.topics
    ]
    return _Table(("TOPIC", "RECORDS/S", "OFFSETS" if view.totals_are_offsets else "TOTAL"), rows, (9, 12))


def _rate(rate: float | None) -> str:
    """Where there are few records, tenths count."""
    if rate is None:
        return "-"
    return f"{rate:.1f}" if 0 < rate < 10 else f"{rate:,.0f}"


def _groups(view: View) -> _Table:
    """The members are left out where nobody knows of any."""
    if all(group.members is None for group in view.groups):
        return _Table(("GROUP", "LAG"), [((group.name, f"{group.lag:,}"), "") for group in view.groups], (10,))
    rows = [
        (
            (group.name, f"{group.lag:,}", "-" if group.members is None else f"{group.members:,}"),
            "bold red" if group.members == 0 else "",
        )
        for group in view.groups
    ]
    return _Table(("GROUP", "LAG", "MEMBERS"), rows, (10, 7))


def _beside(topics: _Table, groups: _Table, width: int, most: int) -> list[Text]:
    if not groups.rows:
        return topics.lines(min(topics.longest, width - topics.room), most)
    names = width - topics.room - groups.room - _GAP
    second = min(groups.longest, max(names - topics.longest, names * 2 // 5))
    first = min(topics.longest, names - second)
    pairs = zip_longest(topics.lines(first, most), groups.lines(second, most))
    blank = Text(" " * (first + topics.room))
    return [(left or blank.copy()).append(" " * _GAP).append_text(right or Text("")) for left, right in pairs]


def _below(topics: _Table, groups: _Table, width: int, most: int) -> list[Text]:
    """One below the other; the topics give way first."""
    wanted = 1 + len(groups.rows) if groups.rows else 0
    second = min(wanted, max(most // 2, most - 1 - len(topics.rows)))
    name = max(0, min(max(topics.longest, groups.longest), width - max(topics.room, groups.room)))
    return [*topics.lines(name, most - second), *(groups.lines(name, second) if second else [])]


def _figures(view: View) -> str:
    parts = ["open -" if view.open_decisions is None else f"open {_about(view)}{view.open_decisions:,}"]
    latency = view.latency
    parts.append("latency -" if latency is None else f"latency p50 {_time(latency.p50)} p99 {_time(latency.p99)}")
    parts.append("partial -" if view.partial is None else f"partial {view.partial:.1%}")
    return " · ".join(parts)


def _about(view: View) -> str:
    return "" if view.open_is_exact else "about "


def _time(milliseconds: float) -> str:
    return f"{milliseconds:,.0f} ms" if milliseconds < 10_000 else f"{milliseconds / 1000:,.1f} s"


def _decisions(decisions: Sequence[Decision], width: int) -> list[Text]:
    is_wide = width >= _WIDE
    heading = ("DECIDED", "SUBJECT", "ACTION", "", "REASONS")
    rows = [
        (
            f"{decision.decided_at:%H:%M:%S.%f}"[: 12 if is_wide else 8],
            decision.subject_id,
            decision.action,
            _completeness(decision),
            "; ".join(decision.reasons),
        )
        for decision in decisions
    ]
    if not rows:
        return [_fit("no decision yet", width, "dim")]
    most = (12, 36 if is_wide else 12, 24 if is_wide else 10, 24)
    widths = [min(most[i], max(len(row[i]) for row in [heading, *rows])) for i in range(4)]
    widths.append(max(0, width - sum(widths) - 2 * len(widths)))
    styles = ["yellow" if not decision.complete else "" for decision in decisions]
    return [
        Text("  ", no_wrap=True).join(
            _fit(cell, cell_width, style) for cell, cell_width in zip(row, widths, strict=True)
        )
        for row, style in zip([heading, *rows], ["dim", *styles], strict=True)
    ]


def _completeness(decision: Decision) -> str:
    word = "complete" if decision.complete else "partial"
    return f"{word} r{decision.revision}" if decision.revision else word


def _fit(text: str, width: int, style: str = "") -> Text:
    """The text in exactly so many columns, with nothing that a terminal might obey."""
    fitted = Text(printable(text), style, no_wrap=True, overflow="ellipsis")
    fitted.truncate(width, overflow="ellipsis", pad=True)
    return fitted


def as_line(view: View) -> str:
    """The view on one line, for a pipe."""
    rates = [f"{topic.name} {_rate(topic.rate)}/s" for topic in view.topics]
    lags = [f"{group.name} {group.lag:,}" for group in view.groups]
    parts = [f"{view.at:%H:%M:%S} " + ", ".join(rates)]
    parts += ["lag: " + ", ".join(lags)] if lags else []
    parts.append(_figures(view))
    if view.decisions:
        last = view.decisions[0]
        parts.append(f"{last.subject_id} {last.action}, {_completeness(last)}: {'; '.join(last.reasons)}")
    parts += [f"PROBLEM: {view.problem}"] if view.problem is not None else []
    return printable(" · ".join(parts))
