"""When each ride is due, in seconds after the start of a replay; pure, so that the clock stays with the caller."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]

MAX_GAP = 10.0
"""The longest wait between two rides, in seconds, however far apart their pickups are."""


class Pace(Protocol):
    """When rides are due, of which there may be any number; the first one is ride 0, and none overtakes another."""

    def due(self, ride: int) -> float:
        """How many seconds after the start this ride is due."""
        ...

    def ready(self, seconds: float) -> int:
        """How many rides are due by so many seconds after the start, to a rounding."""
        ...


class AtOnce:
    """Every ride is due at the start."""

    def due(self, ride: int) -> float:
        """0."""
        return 0.0

    def ready(self, seconds: float) -> int:
        """More than there can be."""
        return sys.maxsize


@dataclass(frozen=True)
class Rate:
    """`first` rides a second, which changes evenly to `last` within `seconds` and stays there; all above 0.

    Without `seconds`, `last` rides a second from the start. Until the change is over, `first * t + change * t**2 / 2`
    rides have come after the first one by the time t, which is the integral of the rate.
    """

    first: float
    last: float
    seconds: float = 0.0

    def due(self, ride: int) -> float:
        """When the integral of the rate is `ride`."""
        if ride >= self._while_changing:
            return self.seconds + (ride - self._while_changing) / self.last
        # The quadratic formula turned over: it does not cancel where the change is small.
        root = math.sqrt(max(self.first * self.first + 2 * self._change * ride, 0.0))
        return 2 * ride / (self.first + root)

    def ready(self, seconds: float) -> int:
        """The first ride, and the integral of the rate."""
        if seconds < self.seconds:
            rides = seconds * (self.first + self._change * seconds / 2)
        else:
            rides = self._while_changing + (seconds - self.seconds) * self.last
        return 1 + int(min(rides, sys.maxsize))

    @property
    def _change(self) -> float:
        return (self.last - self.first) / self.seconds

    @property
    def _while_changing(self) -> float:
        return (self.first / 2 + self.last / 2) * self.seconds


class Timetable:
    """Rides at given times, from ride `first` of the table on, round after round.

    The next round begins when the last ride of the one before is due.
    """

    def __init__(self, times: Seconds, first: int = 0) -> None:
        """`times` are not falling and begin with 0."""
        self._times = times
        self._length = float(times[-1])
        self._first = first
        self._start = self._at(first)

    def due(self, ride: int) -> float:
        """As the table says, after that of its ride `first`."""
        return self._at(self._first + ride) - self._start

    def ready(self, seconds: float) -> int:
        """Those of the rounds that are over, and those of the table for what is left."""
        if not self._length:
            return sys.maxsize
        rounds, rest = divmod(self._start + seconds, self._length)
        return (
            int(min(rounds, sys.maxsize)) * len(self._times)
            + int(np.searchsorted(self._times, rest, side="right"))
            - self._first
        )

    def _at(self, ride: int) -> float:
        rounds, row = divmod(ride, len(self._times))
        return rounds * self._length + float(self._times[row])


def compressed(pickups: NDArray[np.datetime64], speedup: float) -> Seconds:
    """The gaps between the pickups, divided by `speedup` and each at most `MAX_GAP`; 60 makes an hour a minute."""
    gaps = np.diff(pickups) / np.timedelta64(1, "s") / speedup
    return np.concatenate((np.zeros(min(len(pickups), 1)), np.cumsum(np.clip(gaps, 0.0, MAX_GAP))))
