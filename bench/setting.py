"""What every part of the benchmark is given: broker, records, models, sizes; and how its processes are started."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench.arena import Arena
from bench.children import Child
from bench.measurements import Measurement
from bench.records import Backlog
from braidstream.errors import FatalError
from braidstream.models.folder import CARD, read_card
from braidstream.settings import Guarantee
from braidstream.watching.client import ask_by_log

EXACTLY_ONCE = "exactly once"
AT_LEAST_ONCE = "at least once"
GUARANTEES: dict[str, Guarantee] = {EXACTLY_ONCE: "exactly_once", AT_LEAST_ONCE: "at_least_once"}
"""The guarantees as the report names them, and as the workers' setting does."""


_READY_PATIENCE = 300.0


@dataclass(frozen=True)
class Setting:
    """Where and on what is measured. `rides` is how many are scored in a run, `batch` the most records of a batch."""

    broker: str
    partitions: int
    rides: int
    runs: int
    batch: int
    backlog: Backlog
    trips: Path | None
    models: Path
    scratch: Path

    def arena(self) -> Arena:
        """Topics of its own for a part; to be entered."""
        return Arena(self.broker, self.partitions)

    def start(self, argv: list[str], environ: Mapping[str, str], name: str) -> Child:
        """Start a process; `name` is that of its log."""
        return Child(argv, environ, self._log(name))

    def worker(self, arena: Arena, module: str, guarantee: str, name: str, **environ: str) -> Child:
        """Start `python -m module` as a user would, with the defaults of its settings and these besides."""
        own = {
            "HTTP_PORT": "0",
            "LOG_LEVEL": "info",
            "KAFKA_BOOTSTRAP_SERVERS": self.broker,
            "TOPIC_PREFIX": arena.prefix,
            "PARTITIONS": str(self.partitions),
            "PROCESSING_GUARANTEE": GUARANTEES[guarantee],
            "BATCH_SIZE": str(self.batch),
            "LOG_FORMAT": "console",
        }
        if module.startswith("consumers."):
            own["MODEL_URI"] = str(self.models / module.removeprefix("consumers."))
        return self.start([sys.executable, "-m", module], {**own, **environ}, name)

    def await_ready(self, worker: Child, name: str, most: int | None = None) -> None:
        """Wait until the worker started under this name owns partitions and has restored what it knew.

        `most` is the most partitions that it owns when it shares them with others.
        """
        deadline = time.monotonic() + _READY_PATIENCE
        while True:
            partitions = self._partitions(name)
            if partitions and (most is None or partitions <= most):
                return
            worker.require_running()
            if time.monotonic() > deadline:
                raise FatalError(f"{name} is not ready after {_READY_PATIENCE:g} s")
            time.sleep(0.02)

    def _partitions(self, name: str) -> int:
        """How many partitions the worker owns; 0 while it is not ready."""
        answer = ask_by_log(self._log(name))
        return answer.partitions if answer is not None and answer.ready else 0

    def _log(self, name: str) -> Path:
        return self.scratch / f"{name}.log"

    def scikit_learn_model(self, name: str) -> Path:
        """A copy of a model that is served by its estimator, as if it could not be exported."""
        folder = self.scratch / f"{name}-scikit-learn"
        if not folder.exists():
            shutil.copytree(self.models / name, folder)
            card = read_card(folder).model_copy(
                update={"served_by": "scikit-learn", "not_exported": "measured without an export"}
            )
            (folder / CARD).write_text(card.model_dump_json())
        return folder

    def smaller(self, rides: int) -> Setting:
        """The same with fewer rides."""
        return replace(self, rides=min(self.rides, rides))


Part = Callable[[Setting], Iterator[Measurement]]
"""A part of the benchmark: yields what it measured as soon as it has it, run by run."""
