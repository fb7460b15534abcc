"""How far something long has come: a bar on a terminal, a plain line every few seconds anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

Words = Callable[[int, int | None, float], str]
"""A line for how much is done, of how much if that is known, and how much of it a second."""


class Shown(Protocol):
    """Where it is shown how far something has come."""

    def __call__(self, done: int, total: int | None) -> None:
        """Take note of how much is done, of how much if that is known."""
        ...

    def say(self, line: str) -> None:
        """Show a line at once."""
        ...


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} rides/s")


class PlainProgress:
    """Says how far it has come by `say`, when called at least `every` seconds after the last time."""

    def __init__(
        self,
        words: Words,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        every: float = 5.0,
    ) -> None:
        self._words = words
        self.say = say
        self._clock = clock
        self._every = every
        self._last = clock()
        self._done: int | None = None

    def __call__(self, done: int, total: int | None) -> None:
        """See `Shown`; the speed is that since the last line, or since the first call."""
        if self._done is None:
            self._done = done
        now = self._clock()
        if now - self._last < self._every:
            return
        self.say(self._words(done, total, max(done - self._done, 0) / (now - self._last)))
        self._last, self._done = now, done


class Bar:
    """Moves a bar on a terminal, and says lines above it."""

    def __init__(self, bar: Progress, label: str, total: int | None) -> None:
        self._bar = bar
        self._task = bar.add_task(label, total=total)

    def __call__(self, done: int, total: int | None) -> None:
        """See `Shown`."""
        self._bar.update(self._task, completed=done, total=total)

    def say(self, line: str) -> None:
        """Show a line as it stands."""
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)


def rides_sent(sent: int, total: int | None, rate: float) -> str:
    """How many rides a replay has sent."""
    of = f" of {total:,}" if total is not None else ""
    return f"{sent:,}{of} rides sent, {rate:,.0f} a second{_left(sent, total, rate)}"


def bytes_fetched(label: str) -> Words:
    """How many megabytes of this have come."""

    def words(done: int, total: int | None, rate: float) -> str:
        of = f" of {total / 1e6:,.1f}" if total is not None else ""
        return f"{label}: {done / 1e6:,.1f}{of} MB, {rate / 1e6:,.1f} MB a second{_left(done, total, rate)}"

    return words


def _left(done: int, total: int | None, rate: float) -> str:
    return f", about {(total - done) / rate:,.0f} s left" if total is not None and rate > 0 else ""


@contextmanager
def shown_replay(total: int | None) -> Iterator[Shown]:
    """Show on stderr how far a replay of `total` rides is; None is one that goes on for ever."""
    columns = (BarColumn(bar_width=None), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with _shown("rides sent", total, columns, rides_sent) as shown:
        yield shown


@contextmanager
def shown_download(label: str) -> Iterator[Shown]:
    """Show on stderr how many bytes have come."""
    columns = (BarColumn(bar_width=None), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with _shown(label, None, columns, bytes_fetched(label)) as shown:
        yield shown


@contextmanager
def _shown(label: str, total: int | None, columns: tuple[ProgressColumn, ...], words: Words) -> Iterator[Shown]:
    if not sys.stderr.isatty():
        yield PlainProgress(words, lambda line: print(line, file=sys.stderr, flush=True))
        return
    with Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True)) as bar:
        yield Bar(bar, label, total)
