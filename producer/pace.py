"""When each ride is due, in seconds after the start of a replay; pure, so that the clock stays with the caller."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]

MAX_GAP = 10.0
"""The longest wait between two rides, in seconds, however far apart their pickups are."""


def at_once(count: int) -> Seconds:
    """Each of so many rides is due at the start."""
    return np.zeros(count)


def at_rate(count: int, rate: float) -> Seconds:
    """`rate` rides a second, evenly spaced."""
    return np.arange(count) / rate


def compressed(pickups: NDArray[np.datetime64], speedup: float) -> Seconds:
    """The gaps between the pickups, divided by `speedup` and each at most `MAX_GAP`; 60 makes an hour a minute."""
    gaps = np.diff(pickups) / np.timedelta64(1, "s") / speedup
    return np.concatenate((np.zeros(min(len(pickups), 1)), np.cumsum(np.clip(gaps, 0.0, MAX_GAP))))
