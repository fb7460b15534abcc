"""What a demo says while it runs, on stderr: one changing line on a terminal, plain ones elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.status import Status

from braidstream.demo.watch import Seen

_EVERY_TERMINAL = 0.5
_EVERY_PLAIN = 2.0


class Show:
    """Lines that stay, and the state of the run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._clock = clock
        self._last: tuple[float, int] | None = None

    def line(self, text: str) -> None:
        """A line that stays."""
        self._stop()
        self._console.print(text, markup=False)

    def update(self, sent: int, seen: Seen) -> bool:
        """Show the state, unless that was a moment ago; says whether it did."""
        now = self._clock()
        terminal = sys.stderr.isatty()
        if self._last is not None and now - self._last[0] < (_EVERY_TERMINAL if terminal else _EVERY_PLAIN):
            return False
        rate = (len(seen.decisions) - self._last[1]) / (now - self._last[0]) if self._last else 0.0
        self._last = (now, len(seen.decisions))
        predicted = " ".join(f"{model} {len(values):,}" for model, values in seen.predictions.items())
        text = f"{sent:,} sent · {predicted} · {len(seen.decisions):,} decided, {rate:,.0f}/s{self._decision(seen)}"
        if terminal:
            self._show(text)
        else:
            self._console.print(text, markup=False)
        return True

    def _decision(self, seen: Seen) -> str:
        """The latest decision, as an example."""
        if not seen.decisions:
            return ""
        decision = next(reversed(seen.decisions.values()))[-1]
        return f" · {decision.subject_id[:8]}… {decision.action}: {'; '.join(decision.reasons)}"

    def _show(self, text: str) -> None:
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
