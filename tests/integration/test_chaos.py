"""The ride pipeline while everything is broken that can be, in a few minutes; `make chaos` does it for longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from testcontainers.core.network import Network

from tests.containers import Broker, run_hasty_kafka
from tests.faults import faults, report
from tests.faults.faults import Fault, killed_at, paused_at
from tests.faults.fleet import DECIDER
from tests.faults.run import each_once, execute
from tests.faults.world import Setting, running

pytestmark = pytest.mark.docker

DURATION, TIP = "consumers.duration", "consumers.tip"
RATE, GAP = 100.0, 1.0

Run = Callable[[Setting, Sequence[Fault]], None]


@pytest.fixture(scope="module")
def own_kafka(network: Network) -> Iterator[Broker]:
    """A Kafka that these tests break, and that gives up silent workers soon."""
    with run_hasty_kafka(network) as broker:
        yield broker


@pytest.fixture
def run_well(own_kafka: Broker, topic_prefix: str, models: Path, tmp_path: Path) -> Run:
    """Do these faults one after the other; nothing may be lost, done twice or wrong."""

    def run(setting: Setting, happens: Sequence[Fault]) -> None:
        with running(setting, own_kafka, topic_prefix, models, tmp_path) as world:
            outcome = execute(world, happens, models, tmp_path)
        assert outcome.failures == [], report.text(outcome)
        assert outcome.counts["rides"] > 0
        assert sum(outcome.faults.values()) == len(happens)

    return run


def test_every_kind_of_fault(run_well: Run) -> None:
    protocols = {DURATION: "consumer", TIP: "classic", DECIDER: "classic"}
    run_well(Setting("exactly_once", protocols, seed=1, rate=RATE, gap=GAP), each_once(1))


def test_faults_at_the_worst_moments(run_well: Run) -> None:
    """Killed and paused between produce and commit, and killed in the middle of a restore."""
    protocols = {DURATION: "classic", TIP: "consumer", DECIDER: "consumer"}
    happens = [
        killed_at(DURATION, "producing", turn=50),
        killed_at(TIP, "before offsets"),
        killed_at(DECIDER, "before commit"),
        killed_at(DECIDER, "restoring"),
        killed_at(DECIDER, "after commit"),
        paused_at(DURATION, "before commit"),
        paused_at(DECIDER, "before offsets"),
    ]
    run_well(Setting("exactly_once", protocols, seed=2, rate=RATE, gap=GAP), happens)


def test_faults_without_transactions(run_well: Run) -> None:
    protocols = {DURATION: "classic", TIP: "classic", DECIDER: "consumer"}
    happens = [
        killed_at(DURATION, "producing", turn=50),
        killed_at(DECIDER, "flushed"),
        killed_at(DECIDER, "restoring"),
        faults.kill,
        faults.terminate,
        faults.send_again,
    ]
    run_well(Setting("at_least_once", protocols, seed=3, rate=RATE, gap=GAP), happens)
