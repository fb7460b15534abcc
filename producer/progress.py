"""How far a replay has come: a bar on a terminal, a plain line every few seconds anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} rides/s")


class PlainProgress:
    """Says how far it has come by `say`, when called at least `every` seconds after the last time."""

    def __init__(
        self, total: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic, every: float = 5.0
    ) -> None:
        self._total = total
        self._say = say
        self._clock = clock
        self._every = every
        self._start = self._last = clock()

    def __call__(self, sent: int) -> None:
        """Take note that this many rides have been sent."""
        now = self._clock()
        if now - self._last < self._every:
            return
        self._last = now
        rate = sent / (now - self._start)
        left = f", about {(self._total - sent) / rate:,.0f} s left" if rate else ""
        self._say(f"{sent:,} of {self._total:,} rides sent, {rate:,.0f} a second{left}")


@contextmanager
def shown_progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show on stderr how far a replay of `total` rides is; what it yields takes the number sent so far."""
    if not sys.stderr.isatty():
        yield PlainProgress(total, lambda line: print(line, file=sys.stderr, flush=True))
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("rides sent", total=total)
        yield lambda sent: bar.update(task, completed=sent)
