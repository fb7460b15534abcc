"""The join behind decisions, for one partition: a state machine without Kafka, threads or a clock.

A subject's event opens its decision; predictions that come before it wait. A decision closes when every expected
model has answered, when the policy says that what is known is enough, or at its deadline. Times are milliseconds
since 1970, UTC, and always arguments.

Changes are staged: `commit` makes them final, `rollback` undoes them.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, NamedTuple

from braidstream.deciding.policy import E, Evidence, Known, Policy, Verdict
from braidstream.errors import FatalError, RetriableError


class Outcome(NamedTuple):
    """The last revision that was published for a closed subject."""

    revision: int
    action: str
    complete: bool


class State(NamedTuple):
    """What is known of one subject: waiting (no event), open (no outcome), or closed. See `decision_state`."""

    event: bytes | None
    expected: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    first_seen_at: int
    expires_at: int
    outcome: Outcome | None

    @property
    def missing(self) -> tuple[str, ...]:
        """The expected models that have not answered."""
        answered = {evidence.model for evidence in self.evidence}
        return tuple(model for model in self.expected if model not in answered)


class Decided(NamedTuple):
    """A decision to be published."""

    subject_id: str
    revision: int
    verdict: Verdict
    missing: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    opened_at: int
    decided_at: int


class PolicyError(Exception):
    """The policy raised; `subject_id` is whose decision it was, and the cause is what it raised."""

    def __init__(self, subject_id: str, cause: Exception) -> None:
        super().__init__(f"the policy failed for {subject_id}: {type(cause).__name__}: {cause}")
        self.subject_id = subject_id


@dataclass(frozen=True)
class Rules(Generic[E]):
    """How decisions are made.

    `deadline` and `remember` are milliseconds; `read_event` decodes what `Join.event` was given.
    """

    policy: Policy[E]
    expected: tuple[str, ...]
    deadline: int
    remember: int
    read_event: Callable[[bytes], E]


class Changes(NamedTuple):
    """What came of the calls since the last `commit` or `rollback`.

    `states` has one entry for each subject that changed: its new state, or None when it is forgotten. `counts` names
    what happened, for the log.
    """

    decisions: tuple[Decided, ...]
    states: Mapping[str, State | None]
    counts: Mapping[str, int]


class Join(Generic[E]):
    """The decisions of one partition."""

    def __init__(self, rules: Rules[E]) -> None:
        self._rules = rules
        self._states: dict[str, State] = {}
        self._deadlines: list[tuple[int, str]] = []
        self._waits: list[tuple[int, str]] = []
        self._before: dict[str, State | None] = {}
        self._decisions: list[Decided] = []
        self._counts: Counter[str] = Counter()
        self.open = 0
        """Subjects whose event was seen and that are not closed."""
        self.waiting = 0
        """Subjects of which only predictions were seen."""

    def __len__(self) -> int:
        """Every subject that is held, waiting and closed ones included."""
        return len(self._states)

    def restore(self, subject_id: str, state: State | None) -> None:
        """Take one record of the changelog: not staged, nothing is published."""
        self._set(subject_id, state)

    def event(self, subject_id: str, event: bytes, now: int) -> None:
        """The subject's own event; a repeat is counted and ignored. Raises `PolicyError`, with nothing changed."""
        state = self._states.get(subject_id)
        if state is not None and state.event is not None:
            self._counts["repeated_events"] += 1
            return
        waiting = state.evidence if state is not None else ()
        rules = self._rules
        opened = State(event, rules.expected, waiting, now, now + rules.deadline, None)
        self._consider(subject_id, opened, now, final=not opened.missing)

    def prediction(self, subject_id: str, evidence: Evidence, now: int) -> None:
        """A prediction; only the first of each model counts. Raises `PolicyError`, with nothing changed."""
        state = self._states.get(subject_id)
        if state is None:
            self._stage(subject_id, State(None, (), (evidence,), now, now + self._rules.deadline, None))
            return
        if any(known.model == evidence.model for known in state.evidence):
            self._counts["repeated_predictions"] += 1
            return
        state = state._replace(evidence=(*state.evidence, evidence))
        if state.event is None:
            self._stage(subject_id, state)
        elif state.outcome is None:
            self._consider(subject_id, state, now, final=not state.missing)
        else:
            self._counts["late_predictions"] += 1
            self._revise(subject_id, state, state.outcome, now)

    def due(self, now: int) -> bool:
        """Whether a deadline, or the end of a subject's memory, has passed."""
        expiry = self.next_expiry()
        return expiry is not None and expiry <= now

    def next_expiry(self) -> int | None:
        """The time from which `due` may be true; None when nothing is held."""
        return min((heap[0][0] for heap in (self._deadlines, self._waits) if heap), default=None)

    def advance(self, now: int, predictions_read: int, events_read: int) -> None:
        """Close what is past its deadline, drop orphans, forget the closed.

        `predictions_read` is a time such that every prediction committed before it has been given to `prediction`:
        only deadlines up to it fire. `events_read` is the same for the subjects' events: only predictions whose wait
        ended before it are dropped as orphans. Raises `PolicyError`; the subject at fault is left as it was.
        """
        for heap, read in ((self._waits, events_read), (self._deadlines, predictions_read)):
            while heap and heap[0][0] <= min(now, read):
                expiry = heapq.heappop(heap)
                state = self._states.get(expiry[1])
                if state is None or state.expires_at != expiry[0] or _is_waiting(state) != (heap is self._waits):
                    continue
                try:
                    self._expire(expiry[1], state, now)
                except Exception:
                    heapq.heappush(heap, expiry)
                    raise

    def forget(self, subject_id: str) -> None:
        """Drop a subject."""
        if subject_id in self._states:
            self._stage(subject_id, None)

    def state(self, subject_id: str) -> State | None:
        """What is known of a subject, staged changes included."""
        return self._states.get(subject_id)

    def changes(self) -> Changes:
        """What is staged."""
        states = {subject_id: self._states.get(subject_id) for subject_id in self._before}
        return Changes(tuple(self._decisions), states, MappingProxyType(self._counts))

    def commit(self) -> None:
        """What was staged is in the log now."""
        self._before.clear()
        self._decisions.clear()
        self._counts.clear()

    def rollback(self) -> None:
        """Nothing of what was staged is in the log: be as before."""
        for subject_id, state in self._before.items():
            self._set(subject_id, state)
        self.commit()

    def _expire(self, subject_id: str, state: State, now: int) -> None:
        if state.outcome is not None:
            self._stage(subject_id, None)
        elif state.event is None:
            self._counts["orphans"] += 1
            self._stage(subject_id, None)
        else:
            self._consider(subject_id, state, now, final=True)

    def _consider(self, subject_id: str, state: State, now: int, *, final: bool) -> None:
        """Ask the policy; close the decision when it has one, or keep it open."""
        verdict = self._ask(subject_id, state, final=final)
        if verdict is None:
            self._stage(subject_id, state)
        else:
            self._close(subject_id, state, Outcome(0, verdict.action, not state.missing), verdict, now)

    def _revise(self, subject_id: str, state: State, outcome: Outcome, now: int) -> None:
        """After closing: a further revision, only if it changes the action or the completeness."""
        verdict = self._ask(subject_id, state, final=True)
        assert verdict is not None
        complete = not state.missing
        if (verdict.action, complete) == (outcome.action, outcome.complete):
            self._stage(subject_id, state)
        else:
            self._close(subject_id, state, Outcome(outcome.revision + 1, verdict.action, complete), verdict, now)

    def _close(self, subject_id: str, state: State, outcome: Outcome, verdict: Verdict, now: int) -> None:
        if outcome.revision == 0:
            self._counts["complete" if outcome.complete else "partial"] += 1
            state = state._replace(expires_at=now + self._rules.remember)
        else:
            self._counts["revisions"] += 1
        self._decisions.append(
            Decided(subject_id, outcome.revision, verdict, state.missing, state.evidence, state.first_seen_at, now)
        )
        self._stage(subject_id, state._replace(outcome=outcome))

    def _ask(self, subject_id: str, state: State, *, final: bool) -> Verdict | None:
        event = state.event
        assert event is not None
        known = Known(
            subject_id,
            lambda: self._rules.read_event(event),
            MappingProxyType({evidence.model: evidence for evidence in state.evidence}),
            state.missing,
            final,
        )
        try:
            verdict = self._rules.policy(known)
            if verdict is None and final:
                raise ValueError("the policy returned None although there is nothing more to wait for")
            if verdict is not None and not all(isinstance(text, str) for text in (verdict.action, *verdict.reasons)):
                raise TypeError(f"the action and the reasons of a verdict are text: {verdict}")
        except (RetriableError, FatalError):
            raise
        except Exception as error:
            raise PolicyError(subject_id, error) from error
        return verdict

    def _stage(self, subject_id: str, state: State | None) -> None:
        self._before.setdefault(subject_id, self._states.get(subject_id))
        self._set(subject_id, state)

    def _set(self, subject_id: str, state: State | None) -> None:
        old = self._states.get(subject_id)
        self.open += _is_open(state) - _is_open(old)
        self.waiting += _is_waiting(state) - _is_waiting(old)
        if state is None:
            self._states.pop(subject_id, None)
            return
        self._states[subject_id] = state
        if old is None or old.expires_at != state.expires_at or _is_waiting(old) != _is_waiting(state):
            heap = self._waits if _is_waiting(state) else self._deadlines
            heapq.heappush(heap, (state.expires_at, subject_id))


def _is_waiting(state: State | None) -> bool:
    return state is not None and state.event is None


def _is_open(state: State | None) -> bool:
    return state is not None and state.event is not None and state.outcome is None
