"""The ride pipeline as its users run it: processes of their own, on real Kafka, under a topic prefix of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from confluent_kafka import OFFSET_BEGINNING, Message, TopicPartition

from braidstream.avro import Codec
from braidstream.pipelines import Pipeline, Topic
from braidstream.registry import schemas_for
from braidstream.settings import Settings
from braidstream.streaming import clients, topics
from braidstream.streaming.ports import Partition
from braidstream.watching.client import Answer, address_in, ask_by_log
from consumers.duration import train as duration
from consumers.tip import train as tip
from producer.trips import read_trips
from rides.pipeline import RIDES
from schemas.decision import Decision
from schemas.prediction import Prediction
from schemas.ride_started import RideStarted

MODELS = ("duration", "tip")
PATIENCE = 90.0


def train_models(trips: Path, folder: Path) -> None:
    """Train every model on these trips, into a folder with a model of each name."""
    outcomes = read_trips([trips], outcomes=True)
    duration.train(outcomes, folder / "duration")
    tip.train(outcomes, folder / "tip")


class RidePipeline:
    """Topics, workers and what comes out of them."""

    def __init__(
        self, environment: dict[str, str], models: Path, folder: Path, pipeline: Pipeline[RideStarted] = RIDES
    ) -> None:
        self.environment = environment
        self._pipeline = pipeline
        self._models = models
        self._folder = folder
        self._started: dict[subprocess.Popen[bytes], Path] = {}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_")}
        self._inherited = inherited
        kafka = {"bootstrap.servers": environment["KAFKA_BOOTSTRAP_SERVERS"]}
        self.settings = Settings(
            kafka=kafka,
            topic_prefix=environment["TOPIC_PREFIX"],
            schema_registry_url=environment.get("SCHEMA_REGISTRY_URL"),
            partitions=int(environment.get("PARTITIONS", "6")),
        )

    def __enter__(self) -> Self:
        client = clients.admin(self.settings)
        wanted = topics.specs(self._pipeline, self.settings)
        topics.create(client, wanted, None)
        topics.check(client, wanted, self.settings)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            process.kill()
            process.wait()

    def start(self, module: str, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        """Start `python -m <module> <arguments>`; a model's worker with the model of its name."""
        if module.startswith("consumers."):
            settings.setdefault("MODEL_URI", str(self._models / module.removeprefix("consumers.")))
        log = self._folder / f"{module}-{len(self._started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={
                    **self._inherited,
                    **self.environment,
                    "LOG_FORMAT": "console",
                    "HTTP_PORT": "0",
                    "LOG_LEVEL": "info",
                    **settings,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._started[process] = log
        return process

    def wait_until_started(self) -> None:
        """Wait until every worker that runs is ready."""
        running = [process for process in self._started if process.poll() is None]
        self.wait_for(
            lambda: all((answer := self.answer_of(process)) is not None and answer.ready for process in running),
            "every worker to be ready",
        )

    def address_of(self, process: subprocess.Popen[bytes]) -> str | None:
        """Where a worker answers over HTTP; None before it does."""
        return address_in(self._started[process])

    def answer_of(self, process: subprocess.Popen[bytes]) -> Answer | None:
        """What a worker says of itself; None when it does not answer."""
        return ask_by_log(self._started[process])

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """SIGTERM: the worker drains, and exits with 0."""
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, self.logs()

    def wait_for(self, condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        """Poll until the condition holds; an `AssertionError` says what was waited for in vain, with the logs."""
        deadline = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < deadline, f"not within {patience:g} s: {what}\n{self.logs()}"
            time.sleep(0.2)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m <command>` to its end."""
        return self.run_with({}, *command)

    def run_with(self, settings: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
        """The same with settings of its own; the models are those of the pipeline unless they are set."""
        model = {"MODEL_URI": str(self._models / command[0].rpartition(".")[2])}
        return subprocess.run(
            [sys.executable, "-m", *command],
            env={**self._inherited, **model, **self.environment, "LOG_FORMAT": "console", **settings},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def logs(self) -> str:
        """The last lines of every worker."""
        return "\n".join(f"{log.name}:\n{log.read_text()[-1500:]}" for log in sorted(self._folder.glob("*.log")))

    def records(self, topic: str) -> list[Message]:
        """Every record of a topic that a read_committed reader sees, in the order of each partition."""
        name = self.settings.named(topic)
        partitions = [Partition(name, number) for number in range(self.settings.partitions)]
        ends = clients.ends_of(self.settings, partitions)
        reader = clients.reader(self.settings, "test")
        reader.assign([TopicPartition(*partition, OFFSET_BEGINNING) for partition in partitions if ends[partition]])
        left = {partition for partition in partitions if ends[partition]}
        found: list[Message] = []
        deadline = time.monotonic() + PATIENCE
        while left:
            assert time.monotonic() < deadline, f"the end of {name} is not reached"
            found += [message for message in reader.consume(5000, 0.2) if message.error() is None]
            for tp in reader.position([TopicPartition(*partition) for partition in left]):
                if tp.offset >= ends[Partition(tp.topic, tp.partition)]:
                    left.discard(Partition(tp.topic, tp.partition))
        reader.close()
        return found

    def events(self, topic: Topic[Any]) -> list[Any]:
        """The same, decoded."""
        name = self.settings.named(topic.name)
        codec: Codec[Any] = Codec(topic.event_type, schemas_for(self.settings, [topic.event_type]), name)
        return [codec.decode(message.value()) for message in self.records(topic.name)]

    def decided(self) -> int:
        """How many rides have a decision."""
        return len({message.key() for message in self.records(RIDES.decisions.name)})

    def predictions(self) -> dict[tuple[str, str], list[Prediction]]:
        """The predictions by ride and model."""
        found: dict[tuple[str, str], list[Prediction]] = defaultdict(list)
        for prediction in self.events(RIDES.predictions):
            found[prediction.subject_id, prediction.model].append(prediction)
        return found

    def decisions(self) -> dict[str, list[Decision]]:
        """The decisions by ride, in order."""
        found: dict[str, list[Decision]] = defaultdict(list)
        for decision in self.events(RIDES.decisions):
            found[decision.subject_id].append(decision)
        return found

    def assert_each_ride_once(self, rides: Sequence[str]) -> None:
        """One prediction for each ride and model, one complete decision for each ride, no dead letter."""
        predictions, decisions = self.predictions(), self.decisions()
        assert predictions.keys() == {(ride, model) for ride in rides for model in MODELS}
        assert {len(found) for found in predictions.values()} == {1}
        assert decisions.keys() == set(rides)
        assert {len(found) for found in decisions.values()} == {1}
        assert all(decision.complete for found in decisions.values() for decision in found)
        assert self.records(RIDES.dead_letters) == []
