"""The join behind decisions, for one partition: a state machine without Kafka, threads or a clock.

A subject's event opens its decision; predictions that come before it wait. A decision closes when every expected
model has answered, when the policy says that what is known is enough, or at its deadline. Times are milliseconds
since 1970, UTC, and always arguments.

Changes are staged: `commit` makes them final, `rollback` undoes them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Generic, NamedTuple

from braidstream.deciding.expiries import Expiries
from braidstream.deciding.policy import E, Evidence, Known, Policy, Verdict
from braidstream.deciding.subjects import Outcome, State, StateFormat, Subjects
from braidstream.errors import BraidstreamError, FatalError, PoisonRecord, message_of

__all__ = ["Changes", "Decided", "Join", "Outcome", "PolicyError", "Rules", "State", "StateFormat"]


MOST_MODELS = 50
"""Models whose predictions are kept of a subject: whoever may write predictions must not fill the memory with one."""


class Decided(NamedTuple):
    """A decision to be published; `traceparent` names the trace that it belongs to, where that is known."""

    subject_id: str
    revision: int
    verdict: Verdict
    missing: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    opened_at: int
    decided_at: int
    traceparent: bytes | None = None


class PolicyError(Exception):
    """The policy raised; `subject_id` is whose decision it was, and the cause is what it raised."""

    def __init__(self, subject_id: str, cause: Exception) -> None:
        super().__init__(f"the policy failed for {subject_id}: {type(cause).__name__}: {message_of(cause)}")
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

    `states` has one entry for each subject that changed: its new state as the changelog has it, or None when it is
    forgotten. `counts` names what happened, for the log.
    """

    decisions: tuple[Decided, ...]
    states: Mapping[str, bytes | None]
    counts: Mapping[str, int]


class Join(Generic[E]):
    """The decisions of one partition."""

    def __init__(self, rules: Rules[E], state_format: StateFormat) -> None:
        self._rules = rules
        self._subjects = Subjects(state_format)
        self._decisions: list[Decided] = []
        self._counts: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """Subjects whose event was seen and that are not closed."""
        return self._subjects.open

    @property
    def waiting(self) -> int:
        """Subjects of which only predictions were seen."""
        return self._subjects.waiting

    @property
    def remembered(self) -> int:
        """Subjects that are closed and remembered."""
        return self._subjects.closed

    @property
    def decided(self) -> int:
        """Decisions that are staged."""
        return len(self._decisions)

    def __len__(self) -> int:
        """Every subject that is held, waiting and closed ones included."""
        return len(self._subjects)

    def restore(self, subject_id: str, state: State | None) -> None:
        """Take one record of the changelog: not staged, nothing is published."""
        self._subjects.restore(subject_id, state)

    def event(self, subject_id: str, event: bytes, now: int, traceparent: bytes | None = None) -> None:
        """The subject's own event; a repeat is counted and ignored. Raises `PolicyError`, with nothing changed."""
        self._open(subject_id, event, (), now, traceparent, deadline_passed=False)

    def event_after_deadline(
        self, subject_id: str, event: bytes, evidence: Iterable[Evidence], now: int, traceparent: bytes | None = None
    ) -> None:
        """An event whose deadline has passed before, with the predictions that were there then: decide at once.

        Otherwise as `event`.
        """
        self._open(subject_id, event, evidence, now, traceparent, deadline_passed=True)

    def prediction(self, subject_id: str, evidence: Evidence, now: int, traceparent: bytes | None = None) -> None:
        """A prediction; only the first of each model counts.

        Raises `PolicyError`, and `PoisonRecord` when there are predictions of too many models; with nothing changed.
        """
        state = self._subjects.get(subject_id)
        if state is None:
            waiting = State(None, (), (evidence,), now, now + self._rules.deadline, None)
            self._subjects.put(subject_id, waiting)
            return
        event, expected, known, first_seen_at, expires_at, outcome, of_event = state
        for earlier in known:
            if earlier.model == evidence.model:
                self._counts["repeated_predictions"] += 1
                return
        if len(known) >= MOST_MODELS:
            raise PoisonRecord(
                "TRANSFORMATION", f"{subject_id} has predictions of {len(known)} models, no more are kept"
            )
        state = State(event, expected, (*known, evidence), first_seen_at, expires_at, outcome, of_event)
        if event is None:
            self._subjects.put(subject_id, state)
        elif outcome is None:
            self._consider(subject_id, state, now, traceparent)
        else:
            self._counts["late_predictions"] += 1
            self._revise(subject_id, state, outcome, now, traceparent)

    def due(self, now: int) -> bool:
        """Whether a deadline, or the end of a subject's memory, has passed."""
        subjects = self._subjects
        for queue in (subjects.waits, subjects.deadlines, subjects.memories):
            # What was closed before its time has nothing to be asked of the broker for.
            if (entry := self._first(queue, now)) is not None:
                queue.add(*entry)
        expiry = self.next_expiry()
        return expiry is not None and expiry <= now

    def next_expiry(self) -> int | None:
        """The time from which `due` may be true; None when nothing is held."""
        subjects = self._subjects
        queues = (subjects.waits, subjects.deadlines, subjects.memories)
        return min((queue.next for queue in queues if queue.next is not None), default=None)

    def advance(
        self, now: int, predictions_read: int, events_read: int, most: int = sys.maxsize
    ) -> Sequence[PolicyError | None]:
        """Close what is past its deadline, drop orphans, forget the closed: at most so many subjects.

        What came of each deadline, in order. A subject that the policy failed for is left as it was and does not expire
        again: the caller is to `forget` it.

        `predictions_read` is a time such that every prediction committed before it has been given to `prediction`:
        only deadlines up to it fire. `events_read` is the same for the subjects' events: only predictions whose wait
        ended before it are dropped as orphans.
        """
        subjects = self._subjects
        outcomes: list[PolicyError | None] = []
        most -= self._expire(subjects.waits, min(now, events_read), self._drop, most)
        decide = partial(self._decide, now, outcomes)
        most -= self._expire(subjects.deadlines, min(now, predictions_read), decide, most)
        self._expire(subjects.memories, min(now, predictions_read), self.forget, most)
        return outcomes

    def forget_oldest(self, count: int) -> None:
        """Drop so many of the closed subjects before their time, those first that would be forgotten first."""
        if dropped := self._expire(self._subjects.memories, sys.maxsize, self.forget, count):
            self._counts["forgotten_early"] += dropped

    def forget(self, subject_id: str) -> None:
        """Drop a subject."""
        if subject_id in self._subjects:
            self._subjects.put(subject_id, None)

    def state(self, subject_id: str) -> State | None:
        """What is known of a subject, staged changes included."""
        return self._subjects.get(subject_id)

    def changes(self) -> Changes:
        """What is staged."""
        return Changes(tuple(self._decisions), self._subjects.records(), MappingProxyType(self._counts))

    def commit(self) -> None:
        """What was staged is in the log now."""
        self._subjects.commit()
        self._decisions.clear()
        self._counts.clear()

    def rollback(self) -> None:
        """Nothing of what was staged is in the log: be as before."""
        self._subjects.rollback()
        self._decisions.clear()
        self._counts.clear()

    def _open(
        self,
        subject_id: str,
        event: bytes,
        evidence: Iterable[Evidence],
        now: int,
        traceparent: bytes | None,
        *,
        deadline_passed: bool,
    ) -> None:
        state = self._subjects.get(subject_id)
        if state is not None and state.event is not None:
            self._counts["repeated_events"] += 1
            return
        waiting = state.evidence if state is not None else ()
        if evidence:
            waiting = tuple({found.model: found for found in (*waiting, *evidence)}.values())
        rules = self._rules
        opened = State(event, rules.expected, waiting, now, now + rules.deadline, None, traceparent)
        self._consider(subject_id, opened, now, traceparent, deadline_passed=deadline_passed)

    def _first(self, queue: Expiries, until: int) -> tuple[int, str] | None:
        """Take out the first entry that still counts, and those before it."""
        while (entry := queue.pop(until)) is not None:
            at, subject_id = entry
            if self._subjects.expires(subject_id, at, queue):
                break
        return entry

    def _expire(self, queue: Expiries, until: int, end: Callable[[str], None], most: int) -> int:
        """End up to so many subjects; how many it were."""
        for ended in range(most):
            if (entry := self._first(queue, until)) is None:
                return ended
            at, subject_id = entry
            try:
                end(subject_id)
            except Exception:
                queue.add(at, subject_id)
                raise
        return most

    def _drop(self, subject_id: str) -> None:
        self._counts["orphans"] += 1
        self.forget(subject_id)

    def _decide(self, now: int, outcomes: list[PolicyError | None], subject_id: str) -> None:
        state = self._subjects.get(subject_id)
        assert state is not None
        try:
            self._consider(subject_id, state, now, None, deadline_passed=True)
            outcomes.append(None)
        except PolicyError as error:
            outcomes.append(error)

    def _consider(
        self, subject_id: str, state: State, now: int, traceparent: bytes | None, *, deadline_passed: bool = False
    ) -> None:
        """Ask the policy; close the decision when it has one, or keep it open.

        The decision is of the trace of what came now, or of the event's.
        """
        missing = state.missing
        verdict = self._ask(subject_id, state, missing, final=deadline_passed or not missing)
        if verdict is None:
            self._subjects.put(subject_id, state)
            return
        self._counts["partial" if missing else "complete"] += 1
        event, expected, evidence, first_seen_at, _, _, of_event = state
        outcome = Outcome(0, verdict.action, not missing)
        closed = State(event, expected, evidence, first_seen_at, now + self._rules.remember, outcome)
        self._close(subject_id, closed, verdict, missing, now, traceparent=traceparent or of_event)

    def _revise(self, subject_id: str, state: State, outcome: Outcome, now: int, traceparent: bytes | None) -> None:
        """After closing: a further revision, only if it changes the action or the completeness."""
        missing = state.missing
        verdict = self._ask(subject_id, state, missing, final=True)
        assert verdict is not None
        complete = not missing
        if (verdict.action, complete) == (outcome.action, outcome.complete):
            self._subjects.put(subject_id, state)
            return
        self._counts["revisions"] += 1
        outcome = Outcome(outcome.revision + 1, verdict.action, complete)
        self._close(subject_id, state._replace(outcome=outcome), verdict, missing, now, traceparent=traceparent)

    def _close(
        self,
        subject_id: str,
        closed: State,
        verdict: Verdict,
        missing: tuple[str, ...],
        now: int,
        *,
        traceparent: bytes | None,
    ) -> None:
        _, _, evidence, first_seen_at, _, outcome, _ = closed
        assert outcome is not None
        self._decisions.append(
            Decided(subject_id, outcome.revision, verdict, missing, evidence, first_seen_at, now, traceparent)
        )
        self._subjects.put(subject_id, closed)

    def _ask(self, subject_id: str, state: State, missing: tuple[str, ...], *, final: bool) -> Verdict | None:
        event, read_event = state.event, self._rules.read_event
        assert event is not None
        predictions = {evidence.model: evidence for evidence in state.evidence}
        try:
            verdict = self._rules.policy(
                Known(subject_id, lambda: read_event(event), predictions, state.expected, missing, final)
            )
            if verdict is not None:
                _check(verdict)
            elif final:
                raise ValueError("the policy returned None although there is nothing more to wait for")
        except BraidstreamError as error:
            if not isinstance(error, PoisonRecord):
                raise
            raise PolicyError(subject_id, error) from error
        except MemoryError as error:
            raise FatalError(f"there is no memory left to ask the policy about {subject_id}") from error
        except Exception as error:
            raise PolicyError(subject_id, error) from error
        return verdict


def _check(verdict: Verdict) -> None:
    if not isinstance(verdict, Verdict):
        raise TypeError(f"the policy returned {verdict!r:.80}, neither a Verdict nor None")
    for text in (verdict.action, *verdict.reasons):
        if not isinstance(text, str):
            raise TypeError(f"the action and the reasons of a verdict are text: {verdict}")
        text.encode()  # what cannot be written is the policy's error too
