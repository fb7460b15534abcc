"""How many subjects are remembered that are done with: at a limit the oldest are forgotten before their time."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import structlog

_TELL_EVERY = 60_000
"""Milliseconds."""


class Remembering(Protocol):
    """What remembers the subjects of one partition that are done with, and counts those that it forgets early."""

    @property
    def remembered(self) -> int:
        """How many."""
        ...

    def forget_oldest(self, count: int) -> None:
        """Drop so many before their time, those first that would be forgotten first."""
        ...


class Memory:
    """Keeps what is remembered of all partitions within `limit`.

    A repeat, or a late prediction, of one that is forgotten is taken for that of a new subject: so it is logged, once a
    minute.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._told_at = float("-inf")
        self._log = structlog.get_logger()

    def trim(self, partitions: Collection[Remembering], now: int, most: int) -> None:
        """Forget what is too much, of each partition its part: about `most` subjects at once.

        `now` is in milliseconds since 1970.
        """
        remembered = sum(partition.remembered for partition in partitions)
        excess = min(remembered - self._limit, most)
        if excess <= 0:
            return
        for partition in partitions:
            partition.forget_oldest(-(-excess * partition.remembered // remembered))
        if now - self._told_at >= _TELL_EVERY:
            self._told_at = now
            self._log.warning(
                "subjects are forgotten before REMEMBER is over (MAX_REMEMBERED): a repeat of one is taken for a new "
                "subject. Raise the limit, lower REMEMBER, or start more workers",
                remembered=remembered,
                max_remembered=self._limit,
            )
