"""The duration worker with stopwatches: `python -m bench.staged`, with the settings of `python -m consumers.duration`.

At its end it writes what each stage took, in microseconds a record, to the file that BENCH_STAGES names.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

from braidstream.column_reader import ColumnReader
from braidstream.models.features import FeatureSet
from braidstream.models.predictors import OnnxPredictor
from braidstream.run import run_scorer
from braidstream.streaming import publisher
from braidstream.streaming.inbox import Inbox
from braidstream.streaming.intake import Intake
from braidstream.streaming.processor import HandlerProcessor
from braidstream.streaming.scoring import PredictionWriter
from braidstream.streaming.worker import Worker
from consumers.duration.features import FEATURES
from rides.pipeline import RIDES

CLIENT = "client's threads"
"""What the process takes beyond all stages: librdkafka fetches, decompresses, batches and sends by itself."""

_WARM_UP = 50_000


class Seam(NamedTuple):
    """A function whose time is a stage's, without that of other seams that it calls."""

    stage: str
    owner: Any
    name: str


SEAMS = (
    Seam("consume", Inbox, "take"),
    Seam("decode", ColumnReader, "read"),
    Seam("validate", Intake, "read_all"),
    Seam("features", FeatureSet, "matrix"),
    Seam("predict", OnnxPredictor, "__call__"),
    Seam("encode", PredictionWriter, "encode"),
    Seam("headers", HandlerProcessor, "prepare"),
    Seam("produce", publisher, "_produce"),
    Seam("commit", publisher.TransactionalPublisher, "_finish"),
    Seam("commit", publisher.AtLeastOncePublisher, "_finish"),
    Seam("commit", publisher.AtLeastOncePublisher, "commit_rest"),
    Seam("loop", Worker, "step"),
)


class Stopwatch:
    """Adds up seconds by stage, of the CPU (of the calling thread) and of the clock."""

    def __init__(self, cpu: Callable[[], float] = time.thread_time, clock: Callable[[], float] = time.perf_counter):
        self.cpu: defaultdict[str, float] = defaultdict(float)
        self.wall: defaultdict[str, float] = defaultdict(float)
        self._cpu = cpu
        self._clock = clock
        self._local = threading.local()

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time counts for the stage, but for what it spends in other timed functions."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if not hasattr(self._local, "inner"):
                self._local.inner = []
            inner: list[tuple[float, float]] = self._local.inner
            inner.append((0.0, 0.0))
            cpu, wall = self._cpu(), self._clock()
            try:
                return function(*args, **kwargs)
            finally:
                cpu, wall = self._cpu() - cpu, self._clock() - wall
                inner_cpu, inner_wall = inner.pop()
                self.cpu[stage] += cpu - inner_cpu
                self.wall[stage] += wall - inner_wall
                if inner:
                    inner[-1] = inner[-1][0] + cpu, inner[-1][1] + wall

        return timed


class _Account:
    """What was spent between the end of warming up and the last batch."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._records = 0
        self._from: tuple[int, float] | None = None
        self._result: dict[str, dict[str, float]] = {}

    def took(self, records: int) -> None:
        """A batch begins: what came before it is complete."""
        self._records += records
        if self._from is not None:
            self._settle(self._records - records - self._from[0], time.process_time() - self._from[1])
        elif self._records >= _WARM_UP:
            self._stopwatch.cpu.clear()
            self._stopwatch.wall.clear()
            self._from = self._records - records, time.process_time()

    def _settle(self, records: int, process: float) -> None:
        if records:
            cpu, wall = dict(self._stopwatch.cpu), dict(self._stopwatch.wall)
            cpu[CLIENT] = process - sum(cpu.values())
            self._result = {
                stage: {"cpu_us": cpu[stage] / records * 1e6, "wall_us": wall.get(stage, 0.0) / records * 1e6}
                for stage in [*dict.fromkeys(seam.stage for seam in SEAMS if seam.stage in cpu), CLIENT]
            }

    def save(self, path: Path) -> None:
        """Write the stages as JSON."""
        path.write_text(json.dumps(self._result))


def _instrument() -> _Account:
    stopwatch = Stopwatch()
    account = _Account(stopwatch)
    for stage, owner, name in SEAMS:
        setattr(owner, name, stopwatch.timed(stage, getattr(owner, name)))
    take = Inbox.take

    def counted(self: Inbox, limit: int, wait: float, linger: float) -> Any:
        batch = take(self, limit, wait, linger)
        if batch.records:
            account.took(len(batch.records))
        return batch

    Inbox.take = counted  # type: ignore[method-assign]
    return account


if __name__ == "__main__":
    account = _instrument()
    atexit.register(account.save, Path(os.environ["BENCH_STAGES"]))
    run_scorer(RIDES, "duration", FEATURES)
