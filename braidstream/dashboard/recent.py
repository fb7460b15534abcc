"""What came lately: counts that become rates, and records that are looked back at."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")

SECONDS = 10.0
"""What `Recent` calls lately."""

_RATE_SECONDS = 5.0
_MOST = 2000


class Rates:
    """Changes a second of counts that only grow, over the last 5 s."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, Mapping[str, int]]] = deque()

    def add(self, now: float, counts: Mapping[str, int]) -> None:
        """The counts at this moment, in seconds."""
        self._counts.append((now, counts))
        while len(self._counts) > 2 and self._counts[1][0] <= now - _RATE_SECONDS:
            self._counts.popleft()

    def change(self, name: str) -> int:
        """By how much this count grew in the time that is looked back at; 0 for one that shrank.

        One that was not given yet was 0."""
        if not self._counts:
            return 0
        (_, first), (_, last) = self._counts[0], self._counts[-1]
        return max(0, last.get(name, 0) - first.get(name, 0))

    def __call__(self, name: str) -> float | None:
        """The rate of this count; None before it was given twice."""
        seconds = self._counts[-1][0] - self._counts[0][0] if self._counts else 0.0
        return self.change(name) / seconds if seconds > 0 else None


class Recent(Generic[T]):
    """The latest items, 2,000 at most, with the times that they are of."""

    def __init__(self) -> None:
        self._items: deque[tuple[float, T]] = deque(maxlen=_MOST)

    def add(self, at: float, item: T) -> None:
        """An item of this time, in seconds."""
        self._items.append((at, item))

    def since(self, time: float) -> list[tuple[float, T]]:
        """The items of this time and later ones, with their times."""
        return [(at, item) for at, item in self._items if at >= time]

    def latest(self, count: int) -> list[T]:
        """The last items that were added, the newest first."""
        return [item for _, item in islice(reversed(self._items), count)]
