"""What is known of the subjects of one partition, in little memory, with an undo for what is not yet in the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from braidstream.deciding.expiries import Expiries
from braidstream.deciding.policy import Evidence


class Outcome(NamedTuple):
    """The last revision that was published for a closed subject."""

    revision: int
    action: str
    complete: bool


class State(NamedTuple):
    """What is known of one subject: waiting (no event), open (no outcome), or closed. See `decision_state`.

    `traceparent` is that of the event, while it is open.
    """

    event: bytes | None
    expected: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    first_seen_at: int
    expires_at: int
    outcome: Outcome | None
    traceparent: bytes | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """The expected models that have not answered."""
        if not self.evidence:
            return self.expected
        answered = [evidence.model for evidence in self.evidence]
        return tuple([model for model in self.expected if model not in answered])


class StateFormat(Protocol):
    """How a state is written to the changelog, and read back."""

    def encode(self, subject_id: str, state: State) -> bytes: ...
    def decode(self, value: bytes) -> State: ...


class Subjects:
    """The state of each subject. What is `put` is staged: final at `commit`, undone at `rollback`.

    There are far more closed subjects than open ones, and they are seldom asked for: they are held as their record in
    the changelog. `waits`, `deadlines` and `memories` say when the waiting, the open and the closed expire; an entry
    counts while `expires` says so.
    """

    def __init__(self, state_format: StateFormat) -> None:
        self._format = state_format
        self._held: dict[str, State | bytes] = {}
        self._forget_at: dict[str, int] = {}
        self._before: dict[str, State | bytes | None] = {}
        self._records: dict[str, bytes | None] | None = None
        self.waits = Expiries()
        self.deadlines = Expiries()
        self.memories = Expiries()
        self.open = 0
        self.waiting = 0

    def __len__(self) -> int:
        """Every subject, closed ones included."""
        return len(self._held)

    @property
    def closed(self) -> int:
        """Subjects that are closed and remembered."""
        return len(self._forget_at)

    def __contains__(self, subject_id: str) -> bool:
        """Whether anything is known of a subject."""
        return subject_id in self._held

    def get(self, subject_id: str) -> State | None:
        """What is known of a subject, staged changes included."""
        return self._state(self._held.get(subject_id))

    def put(self, subject_id: str, state: State | None) -> None:
        """Stage what is known of a subject now; None forgets it."""
        old = self._held.get(subject_id)
        self._before.setdefault(subject_id, old)
        self._records = None
        self._hold(subject_id, old, state)

    def restore(self, subject_id: str, state: State | None) -> None:
        """Take what the changelog says: not staged."""
        self._hold(subject_id, self._held.get(subject_id), state)
        if subject_id in self._forget_at:
            self._compact(subject_id, self._record(subject_id, state))

    def expires(self, subject_id: str, at: int, queue: Expiries) -> bool:
        """Whether an entry of `waits`, `deadlines` or `memories` is (still) true."""
        if queue is self.memories:
            return self._forget_at.get(subject_id) == at
        state = self._held.get(subject_id)
        return (
            isinstance(state, State)
            and state.outcome is None
            and state.expires_at == at
            and (state.event is None) == (queue is self.waits)
        )

    def records(self) -> Mapping[str, bytes | None]:
        """What is staged, as it is to be written to the changelog; None is a tombstone."""
        if self._records is None:
            get, record = self._held.get, self._record
            self._records = {subject_id: record(subject_id, get(subject_id)) for subject_id in self._before}
        return self._records

    def commit(self) -> None:
        """What was staged is in the log now."""
        for subject_id, record in self.records().items():
            if subject_id in self._forget_at:
                self._compact(subject_id, record)
        self._before.clear()
        self._records = None

    def rollback(self) -> None:
        """Nothing of what was staged is in the log: be as before."""
        for subject_id, before in self._before.items():
            self.restore(subject_id, self._state(before))
        self._before.clear()
        self._records = None

    def _state(self, held: State | bytes | None) -> State | None:
        return self._format.decode(held) if isinstance(held, bytes) else held

    def _record(self, subject_id: str, held: State | bytes | None) -> bytes | None:
        return self._format.encode(subject_id, held) if isinstance(held, State) else held

    def _compact(self, subject_id: str, record: bytes | None) -> None:
        """Hold a closed subject as its record."""
        assert record is not None
        # Taken out first, so that all keys are one string: a dict keeps the first that it was given.
        del self._held[subject_id]
        self._held[subject_id] = record

    def _hold(self, subject_id: str, old: State | bytes | None, state: State | None) -> None:
        before, after = self._queue(old), self._queue(state)
        was_at = old.expires_at if isinstance(old, State) else self._forget_at.get(subject_id)
        if state is None or after is None:
            self._held.pop(subject_id, None)
        else:
            self._held[subject_id] = state
            if before is after and state.expires_at == was_at:
                return
            after.add(state.expires_at, subject_id)
        self.open += (after is self.deadlines) - (before is self.deadlines)
        self.waiting += (after is self.waits) - (before is self.waits)
        if state is not None and after is self.memories:
            self._forget_at[subject_id] = state.expires_at
        elif before is self.memories:
            del self._forget_at[subject_id]

    def _queue(self, held: State | bytes | None) -> Expiries | None:
        """Where it says when this expires."""
        if held is None:
            return None
        if isinstance(held, bytes) or held.outcome is not None:
            return self.memories
        return self.waits if held.event is None else self.deadlines
