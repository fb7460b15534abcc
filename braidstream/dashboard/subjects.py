"""What becomes of subjects, from the records of their topics as they are written."""

from __future__ import annotations

import time
from collections.abc import Callable

from braidstream.dashboard.recent import Recent
from schemas.decision import Decision
from schemas.decision_state import DecisionState

_MOST = 100_000
"""Events that wait to be decided, and decisions that wait for their event to be read."""

_USUAL_DEADLINE = 30.0


class Subjects:
    """Which subjects are open, and how long decisions took; times are seconds since 1970, those of the records.

    What is kept with the `clock`'s time is what was read lately: the records' times are of other clocks.

    `latencies` are milliseconds from a subject's event to its first decision. The records of different topics may come
    in any order, the states of one subject in theirs.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.decided: Recent[Decision] = Recent()
        self.latencies: Recent[float] = Recent()
        self._events: dict[str, float] = {}
        self._decisions: dict[str, float] = {}
        self._open: set[str] = set()
        self._longest_deadline = 0.0

    @property
    def open(self) -> int:
        """Subjects of which the last state that was read has an event and no outcome."""
        return len(self._open)

    @property
    def deadline(self) -> float:
        """Seconds: the longest of those that were opened, or the default of a decision service when none was."""
        return self._longest_deadline or _USUAL_DEADLINE

    def event(self, subject: str, at: float) -> None:
        """A subject's event was written."""
        if (decided_at := self._decisions.pop(subject, None)) is not None:
            self.latencies.add(self._clock(), 1000 * (decided_at - at))
        else:
            _remember(self._events, subject, at)

    def decision(self, decision: Decision, at: float) -> None:
        """A decision was written."""
        self.decided.add(self._clock(), decision)
        if decision.revision > 0:
            return
        if (event_at := self._events.pop(decision.subject_id, None)) is not None:
            self.latencies.add(self._clock(), 1000 * (at - event_at))
        else:
            _remember(self._decisions, decision.subject_id, at)

    def state(self, subject: str, state: DecisionState | None) -> None:
        """A record of the changelog: None is a tombstone."""
        if state is None or state.event is None or state.outcome is not None:
            self._open.discard(subject)
        else:
            self._open.add(subject)
            deadline = (state.expires_at - state.first_seen_at).total_seconds()
            self._longest_deadline = max(self._longest_deadline, deadline)


def _remember(times: dict[str, float], subject: str, at: float) -> None:
    times[subject] = at
    if len(times) > _MOST:
        del times[next(iter(times))]
