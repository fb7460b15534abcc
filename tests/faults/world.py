"""A run's parts, put together: broker, workers, producer and witness; and the time that passes in it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from braidstream.settings import Guarantee
from braidstream.streaming import clients
from tests.containers import Broker
from tests.faults.feeder import Feeder
from tests.faults.fleet import DECIDER, SCORERS, Fleet
from tests.faults.witness import Witness
from tests.integration.ride_pipeline import MODELS, RidePipeline

SESSION = 4.0
"""Seconds after which the group gives up a worker that is silent, and the coordinator a transaction."""
MOST_BETWEEN_POLLS = 6.0
PAUSE = MOST_BETWEEN_POLLS + 2.0
OUTAGE = SESSION + 2.0
DEADLINE = 4.0
"""DECISION_DEADLINE, in seconds: shorter than taking over takes, so that some rides are decided partially."""
BROKER_TIMEOUT = 20.0

_STEP = 0.05
_PATIENCE = 90.0

Protocol = str
"""`classic` or `consumer`."""


@dataclass(frozen=True)
class Setting:
    """What a run is set to.

    `protocols` are the group protocols of each part; `rate` is in rides a second, `gap` the most seconds between two
    faults.
    """

    guarantee: Guarantee
    protocols: dict[str, Protocol]
    seed: int
    rate: float
    gap: float = 4.0


@dataclass(kw_only=True)
class World:
    """A pipeline that runs, to which faults are done. Times are seconds.

    `phases` are EXPECTED_MODELS, each with the time in milliseconds since 1970 from which it held.
    """

    setting: Setting
    broker: Broker
    pipeline: RidePipeline
    fleet: Fleet
    feeder: Feeder
    witness: Witness
    rng: random.Random
    phases: list[tuple[int, tuple[str, ...]]] = field(default_factory=lambda: [(0, MODELS)])
    _later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    @property
    def expected(self) -> tuple[str, ...]:
        """What decision services wait for now."""
        return self.phases[-1][1]

    def expect(self, models: tuple[str, ...]) -> None:
        """Stop the decision services, and start as many that expect these models."""
        count = len(self.fleet.of(DECIDER))
        self.fleet.scale(DECIDER, 0)
        self.phases.append((time.time_ns() // 1_000_000, models))
        self.fleet.settings[DECIDER]["EXPECTED_MODELS"] = ",".join(models)
        self.fleet.scale(DECIDER, count)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a while, within `go_on`."""
        self._later.append((time.monotonic() + seconds, action))

    def go_on(self, seconds: float) -> None:
        """Let time pass: rides are sent, and what has ended is started again."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.feeder.look()
            self.look_after()

    def look_after(self) -> None:
        """A moment without new rides from the producer."""
        self.fleet.look()
        now = time.monotonic()
        due = [entry for entry in self._later if entry[0] <= now]
        for entry in due:
            self._later.remove(entry)
            entry[1]()
        time.sleep(_STEP)

    @property
    def has_plans(self) -> bool:
        """Whether something is still to be done later."""
        return bool(self._later)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Let time pass until a condition holds; an `AssertionError` says what was waited for in vain."""
        until = time.monotonic() + _PATIENCE
        while not condition():
            assert time.monotonic() < until, f"not within {_PATIENCE:g} s: {what}"
            self.go_on(_STEP)

    def await_broker(self) -> None:
        """Wait until the broker answers, while everything goes on."""
        client: AdminClient = clients.admin(self.pipeline.settings)
        self.wait_for(lambda: _answers(client), "the broker is back")


def _answers(client: AdminClient) -> bool:
    try:
        client.list_topics(timeout=1.0)
    except KafkaException:
        return False
    return True


def _settings(setting: Setting, part: str) -> dict[str, str]:
    milliseconds = str(round(SESSION * 1000))
    settings = {
        "PROCESSING_GUARANTEE": setting.guarantee,
        "KAFKA_GROUP_PROTOCOL": setting.protocols[part],
        "KAFKA_MAX_POLL_INTERVAL_MS": str(round(MOST_BETWEEN_POLLS * 1000)),
    }
    if setting.protocols[part] == "classic":
        settings |= {"KAFKA_SESSION_TIMEOUT_MS": milliseconds, "KAFKA_HEARTBEAT_INTERVAL_MS": "1000"}
    if setting.guarantee == "exactly_once":
        settings |= {"KAFKA_TRANSACTION_TIMEOUT_MS": milliseconds, "KAFKA_MESSAGE_TIMEOUT_MS": milliseconds}
    if part == DECIDER:
        settings |= {"DECISION_DEADLINE": f"{DEADLINE:g}", "EXPECTED_MODELS": ",".join(MODELS)}
    return settings


@contextmanager
def running(setting: Setting, broker: Broker, prefix: str, models: Path, folder: Path) -> Iterator[World]:
    """The pipeline with two workers of each part, fed and watched; `folder` gets the logs."""
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": broker.address,
        "TOPIC_PREFIX": prefix,
        "BROKER_TIMEOUT": f"{BROKER_TIMEOUT:g}",
    }
    with ExitStack() as stack:
        pipeline = stack.enter_context(RidePipeline(environment, models, folder))
        witness = stack.enter_context(Witness(pipeline.settings))
        fleet = Fleet(pipeline, models)
        for part in (*SCORERS, DECIDER):
            fleet.settings[part] |= _settings(setting, part)
        feeder = Feeder(pipeline, folder, setting.rate, random.Random(setting.seed + 1))
        for part in (*SCORERS, DECIDER):
            fleet.scale(part, 2)
        yield World(
            setting=setting,
            broker=broker,
            pipeline=pipeline,
            fleet=fleet,
            feeder=feeder,
            witness=witness,
            rng=random.Random(setting.seed),
        )
