"""Which subjects expire when: those of one millisecond together, as a batch opens and closes many at once."""

from __future__ import annotations

import heapq


class Expiries:
    """Subjects by the time at which they expire, in order of time and then of name.

    Nothing is removed but by `pop`: whoever pops a subject looks whether it still expires at that time.
    """

    def __init__(self) -> None:
        self._times: list[int] = []
        self._subjects: dict[int, list[str]] = {}
        self._sorted: int | None = None

    def add(self, at: int, subject_id: str) -> None:
        """The subject expires at this time."""
        subjects = self._subjects.get(at)
        if subjects is None:
            self._subjects[at] = [subject_id]
            heapq.heappush(self._times, at)
        else:
            subjects.append(subject_id)
            if at == self._sorted:
                self._sorted = None

    @property
    def next(self) -> int | None:
        """The time of the first; None when there is none."""
        return self._times[0] if self._times else None

    def pop(self, until: int) -> tuple[int, str] | None:
        """The first, with its time, if that is not after `until`."""
        if not self._times or self._times[0] > until:
            return None
        at = self._times[0]
        subjects = self._subjects[at]
        if at != self._sorted:
            subjects.sort(reverse=True)
            self._sorted = at
        subject_id = subjects.pop()
        if not subjects:
            heapq.heappop(self._times)
            del self._subjects[at]
            self._sorted = None
        return at, subject_id
