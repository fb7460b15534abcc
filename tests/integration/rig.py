"""The ride pipeline with either guarantee on a Kafka that is being broken, and rides that go on being sent to both."""

from __future__ import annotations

import json
import statistics
import subprocess
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from braidstream.settings import Guarantee
from producer.trips import read_trips, rides
from rides.pipeline import RIDES
from tests.faults.checker import Promise, check
from tests.faults.observing import Offsets, observed, offsets_of, promised
from tests.faults.witness import Witness
from tests.integration.ride_pipeline import MODELS, RidePipeline
from tests.integration.traffic import Traffic

PROTOCOLS: dict[Guarantee, str] = {"exactly_once": "classic", "at_least_once": "consumer"}
"""Each guarantee with one of the group protocols: so the faults meet both."""

LONGER_THAN_A_TRANSACTION = 12.0
"""Seconds; transactions and sessions end after 10."""

SOON = 2000.0
"""Milliseconds. A decision takes a few dozen; a machine that is busy with other things may need more."""

_MODULES = (*(f"consumers.{model}" for model in MODELS), "decision_service")
_DEADLINE = 3600.0
_PATIENCE = 180.0
"""Seconds: three brokers that start again on two cores, beside six workers, can stand still for one minute."""
_AFTERWARDS = 40


class Rig:
    """Runs every worker of both pipelines, in a context.

    `servers` is where the tests reach Kafka, and `by` where the workers do, if that is elsewhere.
    """

    def __init__(self, servers: str, models: Path, sample: Path, folder: Path, *, by: str | None = None) -> None:
        self._by = by or servers
        self._folder = folder
        self._stack = ExitStack()
        self._processes: dict[tuple[Guarantee, str], subprocess.Popen[bytes]] = {}
        self._pipelines: dict[Guarantee, RidePipeline] = {}
        self._witnesses: dict[Guarantee, Witness] = {}
        self._promises: dict[Guarantee, Promise] = {}
        for guarantee in PROTOCOLS:
            environment = {"KAFKA_BOOTSTRAP_SERVERS": servers, "TOPIC_PREFIX": f"{guarantee}-{uuid.uuid4().hex[:8]}-"}
            (folder / guarantee).mkdir()
            pipeline = self._pipelines[guarantee] = RidePipeline(environment, models, folder / guarantee)
            self._promises[guarantee] = promised(pipeline, models, guarantee, [(0, MODELS)], _DEADLINE)
        settings = [pipeline.settings for pipeline in self._pipelines.values()]
        self.traffic = Traffic(rides(read_trips([sample]).rides), settings)

    def __enter__(self) -> Self:
        for guarantee, pipeline in self._pipelines.items():
            self._stack.enter_context(pipeline)
            self._witnesses[guarantee] = self._stack.enter_context(Witness(pipeline.settings))
            settings = {
                "KAFKA_BOOTSTRAP_SERVERS": self._by,
                "PROCESSING_GUARANTEE": guarantee,
                "KAFKA_GROUP_PROTOCOL": PROTOCOLS[guarantee],
                "DECISION_DEADLINE": str(_DEADLINE),
                "BROKER_TIMEOUT": str(_PATIENCE),
                "LOG_FORMAT": "json",
            }
            for module in _MODULES:
                self._processes[guarantee, module] = pipeline.start(module, **settings)
        for pipeline in self._pipelines.values():
            pipeline.wait_until_started()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def await_decisions(self, more: int) -> None:
        """Wait until so many rides more than now are decided in both."""
        for guarantee, witness in self._witnesses.items():
            self._await_decisions(guarantee, len(witness.decided) + more)

    def settle(self) -> None:
        """Wait until every ride that was sent is decided in both, and every group has committed all that it read."""
        for guarantee in self._pipelines:
            self._await_decisions(guarantee, len(self.traffic.sent))
            self._await_offsets(guarantee)

    def _await_decisions(self, guarantee: Guarantee, count: int) -> None:
        witness = self._witnesses[guarantee]
        self._pipelines[guarantee].wait_for(
            lambda: len(witness.decided) >= count, f"{count} decisions {guarantee.replace('_', ' ')}", _PATIENCE
        )

    def _await_offsets(self, guarantee: Guarantee) -> None:
        pipeline = self._pipelines[guarantee]
        with offsets_of(pipeline.settings, self._promises[guarantee].readers) as offsets:
            pipeline.wait_for(lambda: self._at_end(guarantee, offsets()), f"{guarantee}: groups at the end", _PATIENCE)

    def _at_end(self, guarantee: Guarantee, offsets: Offsets) -> bool:
        ends = self._witnesses[guarantee].ends.copy()
        return all(
            offsets[group].get(partition, 0) >= end
            for group, topics in self._promises[guarantee].readers.items()
            for partition, end in ends.items()
            if partition.topic in topics
        )

    def check(self) -> None:
        """What is promised is kept for every ride that was sent, by the very processes that were started."""
        ended = {worker: code for worker, process in self._processes.items() if (code := process.poll()) is not None}
        assert ended == {}
        for guarantee, pipeline in self._pipelines.items():
            promise = self._promises[guarantee]
            assert check(observed(pipeline, promise, acknowledged=set(self.traffic.sent)), promise) == []

    def latency(self) -> float:
        """Milliseconds from a ride's record to its decision's, the median of a few rides sent now, over both."""
        sent_now = {ride.encode() for ride in self.traffic.send(_AFTERWARDS, per_second=20)}
        self.settle()
        found = []
        for pipeline in self._pipelines.values():
            sent, decided = (
                {record.key(): record.timestamp()[1] for record in reversed(pipeline.records(topic.name))}
                for topic in (RIDES.subjects, RIDES.decisions)
            )
            found += [decided[ride] - sent[ride] for ride in sent_now]
        return statistics.median(found)

    def logs(self) -> dict[str, list[dict[str, Any]]]:
        """What each worker has logged, line by line."""
        logs = {str(path.relative_to(self._folder)): path.read_text() for path in self._folder.glob("*/*.log")}
        return {worker: [json.loads(line) for line in log.splitlines()] for worker, log in logs.items()}
