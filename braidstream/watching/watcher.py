"""Everything that watches a worker: it hears of the loop, and answers over HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Self

import structlog

from braidstream.errors import RetriableError
from braidstream.streaming.observer import Turn, View
from braidstream.streaming.processor import Work
from braidstream.watching import progress
from braidstream.watching.client import LISTENING
from braidstream.watching.metrics import CONTENT_TYPE, Metrics
from braidstream.watching.progress import LoopWatch, PartitionWatch
from braidstream.watching.reachability import Probe, Reachability
from braidstream.watching.readiness import Readiness
from braidstream.watching.server import Page, Server

NOT_ASSIGNED = "the group has not told yet which partitions this worker has"


class Watcher:
    """An `Observer` of the loop, which watches it from a thread of its own while the context is open.

    `stuck_after` and `stalled_after` are in seconds (see `LoopWatch` and `PartitionWatch`), `now` gives milliseconds
    since 1970, UTC. Metrics are kept where they can be scraped: with `metrics`.
    """

    def __init__(
        self,
        *,
        stuck_after: float,
        stalled_after: float,
        metrics: bool,
        now: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.readiness = Readiness()
        self._loop = LoopWatch(stuck_after, partial(self.readiness.note, "polling"), clock)
        self._partitions = PartitionWatch(stalled_after, partial(self.readiness.note, "moving"), clock)
        self.metrics = (
            Metrics(lambda: self.readiness.reasons, lambda: self._partitions.stalled, now) if metrics else None
        )
        self._owned = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        closed = threading.Event()
        thread = threading.Thread(target=self._watch, args=(closed,), name="watch", daemon=True)
        self._stack.callback(thread.join)
        self._stack.callback(closed.set)
        thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def describe(self, **labels: str) -> None:
        """What this worker is, for the metrics."""
        if self.metrics is not None:
            self.metrics.describe(**labels)

    def serve(self, host: str, port: int, probes: Mapping[str, Probe]) -> str:
        """Answer over HTTP until the context is left; the address, which the log tells too. Raises `SettingsError`."""
        self._stack.callback(Reachability(probes, self.readiness.note).close)
        pages = {"/livez": self.livez, "/readyz": self.readyz, "/metrics": self._scrape}
        server = Server(host, port, pages)
        self._stack.callback(server.close)
        structlog.get_logger().info(LISTENING, at=server.address, pages=" ".join(pages))
        return server.address

    def turned(self, turn: Turn) -> None:
        """See `Observer`."""
        self._loop.turned()
        self._owned = turn.partitions
        note = self.readiness.note
        note("assigned", None if turn.assigned else NOT_ASSIGNED)
        note("restored", turn.waiting_for)
        note("committing", turn.failing)
        if self.metrics is not None:
            self.metrics.turned()

    def viewed(self, view: View) -> None:
        """See `Observer`."""
        self._partitions.look(view.readings, drained=view.drained)
        if self.metrics is not None:
            self.metrics.viewed(view)

    def committed(self, work: Work) -> None:
        """See `Observer`."""
        if self.metrics is not None:
            self.metrics.committed(work)

    def went_back(self, error: RetriableError) -> None:
        """See `Observer`."""
        if self.metrics is not None:
            self.metrics.went_back(error)

    def livez(self) -> Page:
        """Whether the loop turns: when it does not, only a new process helps."""
        return _page("alive", {"polling": self.readiness.reasons["polling"]})

    def readyz(self) -> Page:
        """Whether the worker does its work, and every check that this takes."""
        return _page("ready", self.readiness.reasons, partitions=self._owned)

    def _scrape(self) -> Page:
        assert self.metrics is not None, "what is served is counted"
        return Page(HTTPStatus.OK, CONTENT_TYPE, self.metrics.render())

    def _watch(self, closed: threading.Event) -> None:
        while not closed.wait(progress.EVERY):
            self._loop.look()


def _page(name: str, reasons: Mapping[str, str | None], **figures: int) -> Page:
    holds = all(reason is None for reason in reasons.values())
    checks = {check: {"ok": reason is None, "reason": reason} for check, reason in reasons.items()}
    body = json.dumps({name: holds, **figures, "checks": checks}, indent=2)
    status = HTTPStatus.OK if holds else HTTPStatus.SERVICE_UNAVAILABLE
    return Page(status, "application/json", f"{body}\n".encode())
