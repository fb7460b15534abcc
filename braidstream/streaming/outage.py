"""Notices that no broker can be reached for too long: a consumer alone would wait for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import KafkaError

from braidstream.errors import UnavailableError

_ASK_EVERY = 5.0


class Outage:
    """Counts the time since librdkafka lost every broker; `answers` asks whether one is back.

    `at` is where the brokers should be, `limit` is in seconds.
    """

    def __init__(
        self, answers: Callable[[], bool], at: str, limit: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._answers = answers
        self._at = at
        self._limit = limit
        self._clock = clock
        self._since: float | None = None
        self._asked_at = 0.0
        self._log = structlog.get_logger()

    def heard(self, error: Any) -> None:
        """librdkafka's error callback: must not raise. Single failed connections are in librdkafka's own log lines."""
        if error.code() == KafkaError._TRANSPORT:
            return
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._log.warning("kafka", name=error.name(), detail=error.str())
        elif self._since is None:
            self._log.warning("no broker can be reached", at=self._at, giving_up_after_seconds=self._limit)
            self._since = self._asked_at = self._clock()

    def check(self, records: int) -> None:
        """Called at every turn with the number of records taken; raises `UnavailableError` after the limit."""
        if self._since is None:
            return
        now = self._clock()
        if records == 0 and now - self._asked_at < min(_ASK_EVERY, self._limit):
            return
        self._asked_at = now
        if records or self._answers():
            self._log.info("a broker answers again", at=self._at, after_seconds=round(now - self._since, 1))
            self._since = None
        elif now - self._since >= self._limit:
            raise UnavailableError(
                f"no broker at {self._at} has answered for {now - self._since:.0f} s (BROKER_TIMEOUT)"
            )
