"""Structured logs: one JSON object a line in containers, readable lines on a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Literal

import structlog

__all__ = ["configure"]

Level = Literal["debug", "info", "warning", "error"]


def configure(level: Level, form: Literal["auto", "console", "json"]) -> None:
    """Log to stderr from here on."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if console else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


class ClientLog(logging.Handler):
    """Takes librdkafka's own lines: each kind of line at most once in five seconds, and not its advice on settings.

    A client that cannot connect says so twenty times a second.
    """

    INTERVAL = 5.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last: dict[str, float] = {}
        self._log = structlog.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line on, unless one of its kind was a moment ago."""
        line = record.getMessage()
        kind = line.split(" ", 1)[0]
        now = self._clock()
        if kind == "CONFWARN" or now - self._last.get(kind, float("-inf")) < self.INTERVAL:
            return
        self._last[kind] = now
        self._log.log(record.levelno, "librdkafka", line=line)


def client_logger() -> logging.Logger:
    """The logger to give to a confluent-kafka client."""
    logger = logging.getLogger("braidstream.librdkafka")
    if not logger.handlers:
        logger.addHandler(ClientLog())
        logger.propagate = False
        logger.setLevel(logging.INFO)
    return logger
