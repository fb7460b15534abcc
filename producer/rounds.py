"""Which rides a replay sends, in which order and under which ids: once, or round after round."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from braidstream import SettingsError
from producer.trips import ride_ids

_BATCH = 5_000


@dataclass(frozen=True)
class Rounds:
    """The rides of `Trips.rides`, again and again until there are `total`, or for ever when that is None.

    With a `salt` every round has ids of its own, which follow from it; without one the rides keep theirs.
    """

    rides: pl.DataFrame
    total: int | None
    salt: str | None = None

    def frames(self, first: int = 0) -> Iterator[pl.DataFrame]:
        """The rides from the one of this number on, which counts from 0, a few thousand at a time."""
        at = first
        while self.total is None or at < self.total:
            number, row = divmod(at, self.rides.height)
            left = _BATCH if self.total is None else min(_BATCH, self.total - at)
            frame = self.rides.slice(row, left)
            if self.salt is not None:
                ids = ride_ids(_checksum(f"{self.salt} {number}"), range(row + 1, row + 1 + frame.height))
                frame = frame.with_columns(ride_id=pl.Series(ids, dtype=pl.String))
            yield frame
            at += frame.height

    def checksum(self) -> str:
        """The SHA-256 of the own ids of one round's rides, in their order: of what is sent, and in which order."""
        digest = hashlib.sha256()
        for frame in self.rides.iter_slices(_BATCH):
            digest.update("".join(frame["ride_id"]).encode())
        return digest.hexdigest()


def starting_at(rides: pl.DataFrame, start: datetime | int) -> int:
    """How many rides come before the first that begins at this time or later, or before the one of this number.

    Numbers count from 1. Raises `SettingsError` when there is no such ride.
    """
    if isinstance(start, int):
        if start > rides.height:
            raise SettingsError(f"--start-at {start}: there are {rides.height:,} rides")
        return start - 1
    before = int(rides["pickup_at"].search_sorted(start, side="left"))
    if before == rides.height:
        last = rides["pickup_at"][-1]
        raise SettingsError(f"--start-at {start:%Y-%m-%dT%H:%M:%S}: the last ride begins at {last:%Y-%m-%dT%H:%M:%S}")
    return before


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
