"""Prints a report: as tables on a terminal, or as markdown with a chart."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.table import Table

from bench.bars import held
from bench.measurements import Measurement, Report, Spread, by_run


@dataclass(frozen=True)
class _Column:
    title: str
    decimals: int
    spread: bool = False


_COLUMNS = {
    "records_per_s": _Column("records/s", 0, spread=True),
    "decided_per_s": _Column("rides/s", 0, spread=True),
    "rides_per_s": _Column("rides/s", 0),
    "printed_per_s": _Column("as printed", 0),
    "cpu": _Column("CPU", 2),
    "cpu_us": _Column("CPU µs", 2),
    "wall_us": _Column("wall µs", 2),
    "machine_cpu": _Column("all CPU", 2),
    "p50_ms": _Column("p50 ms", 1),
    "p99_ms": _Column("p99 ms", 1, spread=True),
    "p99_9_ms": _Column("p99.9 ms", 1),
    "idle_cpu": _Column("CPU while idle", 3),
    "now_mb": _Column("MB", 0),
    "peak_mb": _Column("peak MB", 0),
    "bytes_per_open": _Column("B/open", 0),
    "restore_s": _Column("restore s", 1),
    "ready_s": _Column("ready s", 1),
    "latest_s": _Column("latest s", 1),
    "dead_share": _Column("dead letters", 4),
    "wall_s": _Column("process s", 1),
}
"""How each figure is shown, in the order of the columns; `spread` shows the least and the most of the runs too."""

_NOTE = (
    "Medians of the runs, in brackets the least and the most. CPU: CPU seconds a second of the processes measured; "
    "all CPU: the same of everything on the machine, the broker included."
)

_Rows = list[tuple[str, ...]]
_T = TypeVar("_T")


def show(report: Report, console: Console) -> None:
    """Print every table."""
    console.print(*_about(report), _NOTE, sep="\n")
    for title, header, rows in _tables(report.measurements):
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        for number, name in enumerate(header):
            table.add_column(
                name, justify="right" if number else "left", no_wrap=number > 0, min_width=0 if number else 10
            )
        for row in rows:
            table.add_row(*row)
        console.print(table)


def markdown(report: Report) -> str:
    """The same as markdown, with charts of the throughputs."""
    blocks = ["\n".join(f"- {line}" for line in _about(report)), _NOTE]
    for title, header, rows in _tables(report.measurements):
        lines = [f"### {title}", "", _line(header), _line(["---", *["---:"] * (len(header) - 1)])]
        blocks.append("\n".join([*lines, *map(_line, rows)]))
    blocks += _charts(report.measurements)
    return "\n\n".join(blocks) + "\n"


def _tables(measurements: Sequence[Measurement]) -> Iterator[tuple[str, tuple[str, ...], _Rows]]:
    for part in _distinct(m.part for m in measurements):
        own = [m for m in measurements if m.part == part]
        figures = [name for name in _COLUMNS if any(name in m.figures for m in own)]
        header = ("", *(_COLUMNS[name].title for name in figures))
        rows = [
            (subject, *(_cell(own, part, subject, figure) for figure in figures))
            for subject in _distinct(m.subject for m in own)
        ]
        yield part.capitalize(), header, rows
    if bars := list(held(measurements)):
        rows = [(item.bar.text, _spread(item.spread, 3), item.bar.limit, "yes" if item.met else "no") for item in bars]
        yield "Bars", ("", "measured", "bar", "met"), rows


def _cell(measurements: Sequence[Measurement], part: str, subject: str, figure: str) -> str:
    values = list(by_run(measurements, part, subject, figure).values())
    if not values:
        return ""
    column, spread = _COLUMNS[figure], Spread.of(values)
    return _spread(spread, column.decimals) if column.spread else f"{spread.median:,.{column.decimals}f}"


def _spread(spread: Spread, decimals: int) -> str:
    def number(value: float) -> str:
        return f"{value:,.{decimals if abs(value) < 100 else 0}f}"

    if spread.minimum == spread.maximum:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.minimum)}-{number(spread.maximum)})"


def _about(report: Report) -> list[str]:
    """Machine, versions and settings, in a line each."""
    machine, versions, settings = (report.context.get(name, {}) for name in ("machine", "versions", "settings"))
    return [
        f"{report.context.get('date', '')}, {machine.get('cpu')}, {machine.get('cores')} cores, "
        f"{machine.get('memory_gb')} GB, {machine.get('system')}",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        ", ".join(f"{name} {value}" for name, value in settings.items()),
    ]


def _charts(measurements: Sequence[Measurement]) -> Iterator[str]:
    """A chart of each part that has throughputs, in records a second or else in rides."""
    for part in _distinct(m.part for m in measurements):
        own = [m for m in measurements if m.part == part]
        for figure in ("records_per_s", "decided_per_s"):
            names = _distinct(m.subject for m in own if figure in m.figures)
            if names:
                rates = [Spread.of(list(by_run(own, part, name, figure).values())).median for name in names]
                title = json.dumps(f"{part.capitalize()}, {_COLUMNS[figure].title}")
                lines = ["```mermaid", "xychart-beta horizontal", f"  title {title}", f"  x-axis {json.dumps(names)}"]
                yield "\n".join([*lines, f"  bar {json.dumps([round(rate) for rate in rates])}", "```"])
                break


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _distinct(items: Iterable[_T]) -> list[_T]:
    return list(dict.fromkeys(items))
