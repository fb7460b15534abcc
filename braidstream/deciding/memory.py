"""How many closed subjects are remembered: at a limit the oldest are forgotten before their time."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import structlog

from braidstream.deciding.join import Join

_TELL_EVERY = 60_000
"""Milliseconds."""


class Memory:
    """Keeps the closed subjects of all partitions within `limit`, forgetting at most `at_once` of them in one call.

    A repeat, or a late prediction, of one that is forgotten is taken for that of a new subject: so it is logged, once a
    minute, and counted by the joins (`forgotten_early`).
    """

    def __init__(self, limit: int, at_once: int) -> None:
        self._limit = limit
        self._at_once = at_once
        self._told_at = float("-inf")
        self._log = structlog.get_logger()

    def trim(self, joins: Collection[Join[Any]], now: int) -> None:
        """Forget what is too much: of each partition its part. `now` is in milliseconds since 1970."""
        closed = sum(join.closed for join in joins)
        excess = min(closed - self._limit, self._at_once)
        if excess <= 0:
            return
        for join in joins:
            join.forget_oldest(-(-excess * join.closed // closed))
        if now - self._told_at >= _TELL_EVERY:
            self._told_at = now
            self._log.warning(
                "closed subjects are forgotten before REMEMBER is over (MAX_REMEMBERED): a repeat of one is decided "
                "again. Raise the limit, half a kilobyte each, lower REMEMBER, or start more workers",
                remembered=closed,
                max_remembered=self._limit,
            )
