"""What there is while a demo runs: its workers, what was sent, and what has come of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from braidstream.demo.broker import Broker, open_broker
from braidstream.demo.show import Show
from braidstream.demo.watch import Follow, Watch
from braidstream.errors import FatalError
from braidstream.pipelines import Pipeline
from braidstream.processes import Processes

SLACK = 10.0
"""Seconds for which nothing may come while something that has no deadline is still missing."""

_JOIN_TIMEOUT = 60.0


@dataclass(frozen=True)
class Worker:
    """`python -m <module>`, with these settings on top of this process's own; its group reads so many topics."""

    module: str
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    topics: int = 1


class Run:
    """Starts and stops workers, and watches what they write.

    `sent_at` is for the caller to fill: when each subject was sent, by `time.monotonic`.
    """

    def __init__(self, broker: Broker, watch: Watch, workers: Processes, show: Show) -> None:
        self.settings = broker.settings
        self.seen = watch.seen
        self.sent_at: dict[str, float] = {}
        self._environment = broker.environment
        self._watch = watch
        self._workers = workers
        self._show = show

    def look(self, wait: float = 0.0) -> int:
        """Read what has come, show it, and see that the workers live; the number of records read."""
        records = self._watch.read(wait)
        if self._show.update(self.sent_at, self._watch):
            self._workers.require_alive()
        return records

    def start(self, *workers: Worker) -> None:
        """Start workers, and watch until they own every partition; raises `FatalError` when they do not."""
        for worker in workers:
            self._workers.start(worker.module, {"LOG_FORMAT": "console", **self._environment, **worker.settings})
        wanted = {worker.module: worker.topics * self.settings.partitions for worker in workers}
        deadline = time.monotonic() + _JOIN_TIMEOUT
        while any(self._workers.partitions(module) < count for module, count in wanted.items()):
            self._workers.require_alive()
            if time.monotonic() > deadline:
                raise FatalError(f"the workers did not take over all partitions within {_JOIN_TIMEOUT:g} s")
            if self.sent_at:
                self.look(0.1)
            else:
                self._watch.read(0.1)

    def stop(self, module: str) -> None:
        """Stop the workers of this module, as a deployment does; they finish and commit what they have in hand."""
        self._workers.stop(module)

    def settle(self, done: Callable[[], bool], patience: float) -> None:
        """Watch until it is done, or nothing has come for too long.

        That is `patience` seconds, longer than a decision may take, or `SLACK` when everything sent is decided.
        """
        last = time.monotonic()
        while not done():
            if self.look(wait=0.1):
                last = time.monotonic()
            all_decided = len(self.seen.decisions) >= len(self.sent_at)
            if time.monotonic() - last > (SLACK if all_decided else patience):
                break


@contextmanager
def running(pipeline: Pipeline[Any], models: Sequence[str], show: Show, *also: Follow) -> Iterator[Run]:
    """A broker with the pipeline's topics, watched from now on; no worker is started yet, and none survives.

    `models` are those whose predictions are awaited, `also` what to watch besides predictions, decisions and dead
    letters.
    """
    with (
        tempfile.TemporaryDirectory(prefix="braidstream-demo-") as logs,
        open_broker(pipeline, show) as broker,
        closing(Watch(broker.settings, pipeline, models, *also)) as watch,
        Processes(Path(logs)) as workers,
    ):
        yield Run(broker, watch, workers, show)
