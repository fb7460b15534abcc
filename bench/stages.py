"""What each stage of scoring takes, in microseconds a record."""

from __future__ import annotations

import json
from collections.abc import Iterator

from bench.measurements import Measurement
from bench.scoring import filled, scorer
from bench.setting import GUARANTEES, Setting
from bench.throughput import watch
from braidstream.errors import FatalError

PART = "stages"


def full(setting: Setting) -> Iterator[Measurement]:
    """One duration worker with stopwatches, on both guarantees."""
    file = setting.scratch / "stages.json"
    environ = {"BENCH_STAGES": str(file), "MODEL_URI": str(setting.models / "duration")}
    with filled(setting) as arena:
        for run in range(setting.runs):
            for guarantee in GUARANTEES:
                job = scorer(setting, arena, "duration", guarantee)
                with setting.worker(arena, "bench.staged", guarantee, "staged", **environ) as worker:
                    watch(arena, job.group, job.reads, [worker])
                    worker.stop()
                arena.clear(job.writes)
                arena.forget(job.group)
                stages = json.loads(file.read_text())
                if not stages:
                    raise FatalError(
                        f"{setting.rides:,} rides are over before the stages are warm: measure more (--rides)"
                    )
                for stage, figures in stages.items():
                    yield Measurement(PART, f"{guarantee}: {stage}", run, figures)
