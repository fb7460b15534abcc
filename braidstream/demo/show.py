"""What a demo says while it runs, on stderr: a dashboard on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from rich.console import Console

from braidstream.dashboard.terminal import Terminal, can_show
from braidstream.demo.progress import Progress
from braidstream.demo.watch import Seen, Watch

_EVERY_TERMINAL = 0.5
_EVERY_PLAIN = 2.0


class Show:
    """Lines that stay, and the state of the run.

    On a terminal that can show it, and unless it is to be `plain`, the state is a dashboard from the first `update` on.
    Lines are a part of it then, and are printed when it is closed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, plain: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._terminal = None if plain or not can_show(self._console) else Terminal(Console(stderr=True))
        self._progress = Progress()
        self._is_shown = False
        self._lines: list[str] = []
        self._clock = clock
        self._last: tuple[float, int] | None = None

    def close(self) -> None:
        """Give the terminal back."""
        if self._terminal is not None:
            self._terminal.close()
        self._is_shown = False
        for line in self._lines:
            self.line(line)
        self._lines.clear()

    def line(self, text: str) -> None:
        """A line that stays."""
        if self._is_shown:
            self._lines.append(text)
        else:
            self._console.print(text, markup=False)

    def update(self, sent_at: Mapping[str, float], watch: Watch) -> bool:
        """Show the state, unless that was a moment ago; says whether it did."""
        now = self._clock()
        every = _EVERY_PLAIN if self._terminal is None else _EVERY_TERMINAL
        if self._last is not None and now - self._last[0] < every:
            return False
        if self._terminal is None:
            self._console.print(self._text(now, len(sent_at), watch.seen), markup=False)
        else:
            note = self._lines[-1] if self._lines else None
            self._terminal.show(self._progress.view(now, sent_at, watch, note))
            self._is_shown = True
        self._last = (now, len(watch.seen.decisions))
        return True

    def _text(self, now: float, sent: int, seen: Seen) -> str:
        rate = (len(seen.decisions) - self._last[1]) / (now - self._last[0]) if self._last else 0.0
        predicted = " ".join(f"{model} {len(values):,}" for model, values in seen.predictions.items())
        return f"{sent:,} sent · {predicted} · {len(seen.decisions):,} decided, {rate:,.0f}/s{_decision(seen)}"


def _decision(seen: Seen) -> str:
    """The latest decision, as an example."""
    if not seen.decisions:
        return ""
    decision = next(reversed(seen.decisions.values()))[-1]
    return f" · {decision.subject_id[:8]}… {decision.action}: {'; '.join(decision.reasons)}"
