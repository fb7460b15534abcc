"""The whole stack by docker compose: rides replayed while workers are added, and every container restarted."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from producer.sample import write_sample
from tests import command_line
from tests.documented import IN_COMPOSE

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
MONTH = ROOT.parent / "shared" / "data" / "green_tripdata_2023-02.parquet"
MODELS = ("duration", "tip")
RIDES = 20_000
RIDES_A_SECOND = 400
RIDES_AFTER_RESTART = 300
SCALED = {"duration": 3, "tip": 2, "decision": 2}
PARTITIONS = 6
SCRAPE = "import urllib.request as http; print(http.urlopen('http://127.0.0.1:8000/metrics').read().decode())"

Record = dict[str, Any]


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class Stack:
    """A compose project of its own, on ports of its own."""

    def __init__(self, trips: Path) -> None:
        broker, registry = _free_ports(2)
        self.trips = trips
        self.typed: list[str] = []
        self.bootstrap_servers = f"localhost:{broker}"
        self._command = ["docker", "compose", "-p", f"braidstream-test-{uuid.uuid4().hex[:8]}"]
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "COMPOSE_"))},
            "BROKER_PORT": str(broker),
            "REGISTRY_PORT": str(registry),
            "TRIPS_DIR": str(trips.parent),
            "TRIPS": "",
            "PARTITIONS": str(PARTITIONS),
        }
        self._settings = {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "SCHEMA_REGISTRY_URL": f"http://localhost:{registry}/apis/ccompat/v7",
        }

    def compose(self, *arguments: str) -> str:
        """Run a command of docker compose to its end; what it printed on stdout."""
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=ROOT,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode != 0:
            pytest.fail(f"docker compose {' '.join(arguments)}: {done.stderr[-3000:]}\n{self._logs()}", pytrace=False)
        return done.stdout

    def type(self, line: str) -> str:
        """Run a command of the documents, of this project and without a terminal; what it printed on stdout."""
        return self.compose(*self._here(line))

    def glance(self, line: str) -> str:
        """The first line that a command of the documents prints which goes on."""
        with subprocess.Popen(
            [*self._command, *self._here(line)], cwd=ROOT, env=self._environ, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            try:
                return process.stdout.readline()
            finally:
                process.kill()

    def _here(self, line: str) -> list[str]:
        self.typed.append(line)
        words = shlex.split(line)[2:]
        return [words[0], "-T", *words[1:]] if words[0] in ("run", "exec") else words

    def start_replay(self, *options: str) -> subprocess.Popen[str]:
        """Replay the trips in a container, without waiting for it."""
        return subprocess.Popen(
            [*self._command, "run", "--rm", "-T", "producer", f"/data/{self.trips.name}", *options],
            cwd=ROOT,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def tail(self, topic: str) -> list[Record]:
        """Every committed record of a topic, read by the command line on this machine."""
        done = command_line.run("tail", topic, "--to-end", "--json", settings=self._settings)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def down(self) -> None:
        subprocess.run(
            [*self._command, "--profile", "tools", "down", "--volumes", "--remove-orphans", "--timeout", "2"],
            cwd=ROOT,
            env=self._environ,
            capture_output=True,
            timeout=120,
            check=False,
        )

    def _logs(self) -> str:
        logs = subprocess.run(
            [*self._command, "logs", "--tail", "15"],
            cwd=ROOT,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return logs.stdout[-8000:]


@dataclass
class Observed:
    """What was seen of one life of the stack."""

    stack: Stack
    members: dict[str, list[set[tuple[str, int]]]] = field(default_factory=dict)
    before_restart: dict[str, list[Record]] = field(default_factory=dict)
    at_the_end: dict[str, list[Record]] = field(default_factory=dict)
    training_log: str = ""
    by_cli: str = ""
    log: str = ""
    health: str = ""
    metrics: str = ""


@pytest.fixture(scope="module")
def trips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real month where there is one, else a synthetic one, and beside it `trips.parquet`; all may read them."""
    folder = tmp_path_factory.mktemp("trips")
    folder.chmod(0o755)
    month = folder / MONTH.name
    if MONTH.exists():
        shutil.copy(MONTH, month)
    else:
        write_sample(month, RIDES + 1000, 7, "2023-02")
    write_sample(folder / "trips.parquet", RIDES_AFTER_RESTART, 1, "2023-01")
    for path in folder.iterdir():
        path.chmod(0o644)
    return month


@pytest.fixture(scope="module")
def observed(trips: Path) -> Iterator[Observed]:
    """Up, a replay during which workers are added, every container restarted, a second replay, and down again."""
    _require_compose()
    stack = Stack(trips)
    try:
        seen = Observed(stack)
        stack.type("docker compose up --build --wait")
        _replay_while_scaling(stack, seen)
        _await_decisions(stack, RIDES)
        seen.before_restart = {topic: stack.tail(topic) for topic in ("ride_started", "predictions", "decisions")}
        _restart_everything(stack)
        stack.type("docker compose run --rm producer /data/trips.parquet --rate 1000")
        _await_decisions(stack, RIDES + RIDES_AFTER_RESTART)
        topics = ("ride_started", "predictions", "decisions", "dead_letters")
        seen.at_the_end = {topic: stack.tail(topic) for topic in topics}
        seen.training_log = stack.compose("logs", "train")
        seen.by_cli = stack.type("docker compose run --rm cli tail decisions --from-beginning --limit 5")
        seen.health = stack.type("docker compose exec duration braidstream health")
        seen.log = stack.glance("docker compose logs -f decision")
        seen.metrics = stack.compose("exec", "-T", "duration", "python", "-c", SCRAPE)
        stack.type("docker compose run --rm cli doctor")
        for command in ("stop duration", "start duration", "restart duration"):
            stack.type(f"docker compose {command}")
        yield seen
        stack.type("docker compose down --volumes")
        assert set(stack.typed) == set(IN_COMPOSE)
    finally:
        stack.down()


def _require_compose() -> None:
    try:
        subprocess.run(["docker", "compose", "version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing(f"docker compose is missing: {error}")


def _scale() -> list[str]:
    return [argument for service, count in SCALED.items() for argument in ("--scale", f"{service}={count}")]


def _replay_while_scaling(stack: Stack, seen: Observed) -> None:
    replay = stack.start_replay("--limit", str(RIDES), "--rate", str(RIDES_A_SECOND))
    try:
        _wait_until(lambda: len(stack.tail("decisions")) > 0, 60, "a first decision")
        assert replay.poll() is None, "the replay was over before workers were added"
        stack.type(f"docker compose up --wait --no-recreate {' '.join(_scale())}")
        seen.members = _spread_members(stack)
        assert replay.poll() is None, "the replay was over before the added workers had their partitions"
    except BaseException:
        replay.kill()
        raise
    finally:
        _finish(replay)


def _finish(replay: subprocess.Popen[str]) -> None:
    output, _ = replay.communicate(timeout=180)
    assert replay.returncode == 0, output


def _restart_everything(stack: Stack) -> None:
    """Every container of the stack ends and starts again, the broker first."""
    for services in (["kafka"], ["registry"], list(SCALED)):
        stack.compose("restart", *services)
        stack.compose("up", "--wait", "--no-recreate", *_scale())


def _wait_until(is_so: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"no {what} within {seconds:g} s"


def _await_decisions(stack: Stack, rides: int) -> None:
    decided: set[str] = set()

    def all_are_decided() -> bool:
        decided.update(record["key"] for record in stack.tail("decisions"))
        return len(decided) >= rides

    _wait_until(all_are_decided, 90, f"decision for each of {rides} rides")


def _spread_members(stack: Stack) -> dict[str, list[set[tuple[str, int]]]]:
    """The partitions of each member of each group, once each group has the members it was scaled to."""
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    members: dict[str, list[set[tuple[str, int]]]] = {}

    def all_have_partitions() -> bool:
        for group, future in admin.describe_consumer_groups(list(SCALED)).items():
            assigned = [member.assignment.topic_partitions for member in future.result(10).members]
            members[group] = [{(at.topic, at.partition) for at in partitions} for partitions in assigned]
        return all(len(members[group]) == count and all(members[group]) for group, count in SCALED.items())

    _wait_until(all_have_partitions, 30, "partitions for every member")
    return members


def test_every_ride_is_sent_once(observed: Observed) -> None:
    keys = Counter(record["key"] for record in observed.at_the_end["ride_started"])
    assert len(keys) == RIDES + RIDES_AFTER_RESTART
    assert set(keys.values()) == {1}


def test_one_prediction_for_each_ride_and_model(observed: Observed) -> None:
    rides = [record["key"] for record in observed.at_the_end["ride_started"]]
    predicted = Counter(
        (record["value"]["subject_id"], record["value"]["model"]) for record in observed.at_the_end["predictions"]
    )
    assert predicted == Counter((ride, model) for ride in rides for model in MODELS)


def test_one_decision_for_each_ride_and_its_revisions_are_consistent(observed: Observed) -> None:
    decisions: dict[str, list[Record]] = defaultdict(list)
    for record in observed.at_the_end["decisions"]:
        decisions[record["key"]].append(record["value"])
    assert decisions.keys() == {record["key"] for record in observed.at_the_end["ride_started"]}
    for ride, revisions in decisions.items():
        assert [revision["revision"] for revision in revisions] == list(range(len(revisions))), ride
        assert revisions[-1]["complete"], revisions
        assert {evidence["model"] for evidence in revisions[-1]["evidence"]} == set(MODELS), revisions


def test_no_ride_is_partial_that_need_not_be(observed: Observed) -> None:
    assert [record for record in observed.at_the_end["decisions"] if not record["value"]["complete"]] == []


def test_nothing_is_in_the_dead_letters(observed: Observed) -> None:
    assert observed.at_the_end["dead_letters"] == []


def test_everything_about_a_ride_has_one_partition_number(observed: Observed) -> None:
    partitions = defaultdict(set)
    for topic in ("ride_started", "predictions", "decisions"):
        for record in observed.at_the_end[topic]:
            partitions[record["key"]].add(record["partition"])
    assert {len(numbers) for numbers in partitions.values()} == {1}


@pytest.mark.parametrize("group", MODELS)
def test_partitions_are_spread_over_the_workers_of_a_model(observed: Observed, group: str) -> None:
    members = observed.members[group]
    assert [len(partitions) for partitions in members] == [PARTITIONS // SCALED[group]] * SCALED[group]
    assert set.union(*members) == {("ride_started", number) for number in range(PARTITIONS)}


def test_decision_workers_own_the_same_numbers_of_every_joined_topic(observed: Observed) -> None:
    members = observed.members["decision"]
    numbers = {topic: [{n for t, n in member if t == topic} for member in members] for topic, _ in members[0]}
    assert numbers["ride_started"] == numbers["predictions"]
    assert sorted(map(len, numbers["predictions"])) == [PARTITIONS // 2] * 2
    assert set.union(*numbers["predictions"]) == set(range(PARTITIONS))


@pytest.mark.parametrize("topic", ["ride_started", "predictions", "decisions"])
def test_restarting_every_container_loses_nothing(observed: Observed, topic: str) -> None:
    after = {(record["partition"], record["offset"]): record for record in observed.at_the_end[topic]}
    before = observed.before_restart[topic]
    assert [after.get((record["partition"], record["offset"])) for record in before] == before


def test_one_shots_that_run_again_keep_the_models(observed: Observed) -> None:
    assert observed.training_log.count(" trained on ") == len(MODELS)


def test_the_command_line_reads_in_a_container(observed: Observed) -> None:
    shown = [json.loads(line.split("\t")[3]) for line in observed.by_cli.splitlines()]
    assert len(shown) == 5
    assert {value["action"] for value in shown} <= {"preassign", "standard", "review"}


def test_the_log_of_a_container_is_shown(observed: Observed) -> None:
    assert observed.log.startswith("decision-")


def test_a_container_says_that_it_is_ready(observed: Observed) -> None:
    """Compose has waited for the health check of every worker."""
    assert observed.health == f"ready, with {PARTITIONS // SCALED['duration']} partitions\n"


def test_a_container_has_metrics(observed: Observed) -> None:
    assert 'braidstream_records_consumed_total{topic="ride_started"}' in observed.metrics
    assert 'braidstream_check{check="registry_reachable"} 1.0' in observed.metrics
