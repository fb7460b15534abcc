"""Which subjects of one partition were handled, in little memory, with an undo for what is not yet in the log."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from braidstream.deciding.expiries import Expiries


class HandledSubjects:
    """The subjects that were handled, and until when that is remembered, in milliseconds since 1970.

    What is changed is staged: final at `commit`, undone at `rollback`.
    """

    def __init__(self) -> None:
        self._expires_at: dict[str, int] = {}
        self._expiries = Expiries()
        self._before: dict[str, int | None] = {}
        self.forgotten_early = 0
        """How many are staged to be forgotten before their time."""

    @property
    def remembered(self) -> int:
        """How many are remembered."""
        return len(self._expires_at)

    def includes(self, subject_id: str, now: int) -> bool:
        """Whether this subject was handled, staged changes included, and is still to be remembered."""
        return self._expires_at.get(subject_id, now) > now

    def add(self, subject_id: str, expires_at: int) -> None:
        """The subject is handled."""
        self._stage(subject_id, expires_at)

    def expire(self, now: int, most: int = sys.maxsize) -> int:
        """Forget those whose time is over, so many at most; how many it were."""
        for expired in range(most):
            if (subject_id := self._next_until(now)) is None:
                return expired
            self._stage(subject_id, None)
        return most

    def forget_oldest(self, count: int) -> None:
        """Forget so many before their time, those first that would be forgotten first."""
        self.forgotten_early += self.expire(sys.maxsize, count)

    def restore(self, subject_id: str, expires_at: int | None) -> None:
        """Take what the changelog says: not staged."""
        self._hold(subject_id, expires_at)

    def changes(self) -> Mapping[str, int | None]:
        """What is staged: until when each subject is remembered, None for what is forgotten."""
        return {subject_id: self._expires_at.get(subject_id) for subject_id in self._before}

    def commit(self) -> None:
        """What was staged is in the log now."""
        self._before.clear()
        self.forgotten_early = 0

    def rollback(self) -> None:
        """Nothing of what was staged is in the log: be as before."""
        for subject_id, expires_at in self._before.items():
            self._hold(subject_id, expires_at)
        self.commit()

    def _stage(self, subject_id: str, expires_at: int | None) -> None:
        self._before.setdefault(subject_id, self._expires_at.get(subject_id))
        self._hold(subject_id, expires_at)

    def _hold(self, subject_id: str, expires_at: int | None) -> None:
        if expires_at is None:
            self._expires_at.pop(subject_id, None)
        else:
            self._expires_at[subject_id] = expires_at
            self._expiries.add(expires_at, subject_id)

    def _next_until(self, until: int) -> str | None:
        """Take out the first that expires by then, and the entries before it that no longer count."""
        while (entry := self._expiries.pop(until)) is not None:
            expires_at, subject_id = entry
            if self._expires_at.get(subject_id) == expires_at:
                return subject_id
        return None
