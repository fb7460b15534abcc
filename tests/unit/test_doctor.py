"""`braidstream doctor`: each finding, by breaking that thing. What only Kafka can break is in tests/integration."""

from __future__ import annotations

import json
import shlex
import socket
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from confluent_kafka import TIMESTAMP_CREATE_TIME, Message, Producer
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LinearRegression

from braidstream.cli import main
from braidstream.cli.groups import Group, Log, Member, Snapshot, dated, lags
from braidstream.doctor import broker, decisions, examination, groups, models, registry, topics
from braidstream.doctor.case import Case
from braidstream.doctor.findings import Finding, Level
from braidstream.doctor.settings import DoctorSettings
from braidstream.embedded import EmbeddedBroker, appear
from braidstream.errors import SettingsError
from braidstream.models.export import save
from braidstream.models.features import FeatureSet, Matrix
from braidstream.models.folder import CARD, ONNX, DataSummary
from braidstream.streaming.dead_letters import dead_letter
from braidstream.streaming.ports import Partition
from braidstream.writer import open_writer
from rides.pipeline import RIDES
from schemas.decision import Decision
from schemas.prediction import Prediction
from tests.unit.registry_server import Registry, run_registry

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def case_of(folder: Path, **environ: str) -> Case:
    """The rides under these settings, in this folder."""
    return Case(DoctorSettings.load(environ), RIDES, None, folder)


def levels(found: list[Finding]) -> list[tuple[str, Level]]:
    return [(finding.check, finding.level) for finding in found]


# The broker


def unreachable(case: Case, patience: float = 0.0) -> Finding:
    with pytest.raises(broker.Unreachable) as refusal:
        broker.reach(case.settings, patience)
    return refusal.value.finding


def test_a_broker_that_is_not_named(tmp_path: Path) -> None:
    found = unreachable(case_of(tmp_path))
    assert found.says.startswith("KAFKA_BOOTSTRAP_SERVERS is not set")
    assert found.mend == ("export KAFKA_BOOTSTRAP_SERVERS=localhost:9092",)


def test_a_property_that_librdkafka_does_not_know(tmp_path: Path) -> None:
    found = unreachable(case_of(tmp_path, KAFKA_BOOTSTRAP_SERVERS="localhost:1", KAFKA_SASL_USER="x"))
    assert "KAFKA_SASL_USER: No such configuration property" in found.says


def test_a_broker_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        servers = f"127.0.0.1:{taken.getsockname()[1]}"
        found = unreachable(case_of(tmp_path, KAFKA_BOOTSTRAP_SERVERS=servers))
    assert found.says.startswith(f"none can be asked at {servers}: is it running, is KAFKA_BOOTSTRAP_SERVERS right")
    assert "Connection refused" in found.says


def test_a_host_that_is_not_there(tmp_path: Path) -> None:
    found = unreachable(case_of(tmp_path, KAFKA_BOOTSTRAP_SERVERS="no-such-host.invalid:9092"), patience=20)
    assert ": there is no such host (" in found.says


# On librdkafka's broker


@pytest.fixture
def embedded() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as started:
        appear(Producer({"bootstrap.servers": started.bootstrap_servers}), [*(t.name for t in RIDES.topics)])
        appear(Producer({"bootstrap.servers": started.bootstrap_servers}), [RIDES.dead_letters])
        yield started


def at(embedded: EmbeddedBroker, folder: Path, **environ: str) -> Case:
    return case_of(folder, **embedded.environment, **environ)


def test_the_embedded_broker_is_well_but_for_transactions(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    case = at(embedded, tmp_path)
    assert {finding.level for finding in examination.examine(case)} == {"ok"}
    exactly_once = replace(case, settings=case.settings.model_copy(update={"processing_guarantee": "exactly_once"}))
    first = next(examination.examine(exactly_once))
    assert (first.level, first.mend) == ("wrong", ("export PROCESSING_GUARANTEE=at_least_once",))


def test_topics_that_are_missing(tmp_path: Path) -> None:
    with EmbeddedBroker() as empty:
        found = [one for one in examination.examine(at(empty, tmp_path, TOPIC_PREFIX="x.")) if one.level != "ok"]
    (missing,) = found
    assert missing.says == "missing: x.ride_started, x.predictions, x.decisions, x.decision_state, x.dead_letters"
    assert missing.mend == ("braidstream topics create",)


@pytest.mark.parametrize("prefix", ["", "x."])
def test_topics_that_are_there_with_another_prefix(tmp_path: Path, prefix: str) -> None:
    names = [*(f"{prefix}{name}" for name in case_of(tmp_path).topics), "other_ride_started"]
    metadata = topics_of(**dict.fromkeys(names, 6))
    (found,) = topics.examine(case_of(tmp_path, KAFKA_BOOTSTRAP_SERVERS="k:1", TOPIC_PREFIX="y."), metadata, {})
    assert found.says == f"none has the TOPIC_PREFIX 'y.'; those of the pipeline are there with '{prefix}'"
    assert found.mend == ("export TOPIC_PREFIX=" + shlex.quote(prefix),)


def test_dead_letters_of_late_that_were_not_sent_back(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    source = Message(topic="ride_started", partition=0, offset=5, key=b"ride-1", value=b"x")
    producer = Producer({"bootstrap.servers": embedded.bootstrap_servers})
    long_ago = int((datetime.now(UTC) - timedelta(hours=2)).timestamp() * 1000)
    for group, error, timestamp in (("duration", ValueError("no"), 0), ("tip", KeyError("no"), long_ago)):
        topic, partition, key, value, headers = dead_letter("dead_letters", source, error, group)
        producer.produce(topic, value, key, partition=partition, headers=list(headers), timestamp=timestamp)
    assert producer.flush(10) == 0
    (found,) = (one for one in examination.examine(at(embedded, tmp_path)) if one.check == "dead letters")
    assert found.says == "1 of duration in the last hour: ValueError at TRANSFORMATION"
    assert found.mend == ("braidstream dlq list --summary --since 1h",)


def test_large_dead_letters_are_not_kept(
    embedded: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their values are as large as a record can be: what is counted is let go of."""
    kept: list[int] = []

    def large(_: object, topic: str, *__: object, **___: object) -> Iterator[Message]:
        now = TIMESTAMP_CREATE_TIME, int(1000 * time.time())
        for number in range(100 if topic == "dead_letters" else 0):
            yield Message(topic=topic, partition=0, offset=number, value=bytes(100_000), timestamp=now)
            kept.append(tracemalloc.get_traced_memory()[0])

    monkeypatch.setattr(examination, "read", large)
    tracemalloc.start()
    try:
        found = list(examination.examine(at(embedded, tmp_path)))
    finally:
        tracemalloc.stop()
    assert any(one.says.startswith("100 of a group that is not known") for one in found)
    assert kept[-1] - kept[0] < 1_000_000


def decision(subject: str, missing: list[str], revision: int = 0, waited: float = 0.0) -> Decision:
    return Decision(
        subject_id=subject,
        revision=revision,
        action="review",
        reasons=[],
        complete=not missing,
        missing=missing,
        evidence=[],
        opened_at=NOON,
        decided_at=NOON + timedelta(seconds=waited),
    )


def test_decisions_that_were_made_at_their_deadline(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    case = at(embedded, tmp_path)
    with open_writer(RIDES.decisions, case.settings) as writer:
        for number in range(8):
            late = number < 3
            writer.send(decision(f"ride-{number}", ["tip"] if late else [], waited=30 if late else 0))
        writer.send(decision("ride-0", [], revision=1))
    (found,) = (one for one in examination.examine(case) if one.check == "decisions")
    assert found.level == "warning"
    assert found.says.startswith(
        "3 of the last 8 decisions were made at their deadline, the last at 12:00:30 UTC; missing is tip in 3"
    )


def test_decisions_of_a_policy_that_did_not_wait(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    case = at(embedded, tmp_path)
    with open_writer(RIDES.decisions, case.settings) as writer:
        writer.send(decision("ride-0", ["tip"], waited=29))
    (found,) = (one for one in examination.examine(case) if one.check == "decisions")
    assert (found.level, found.says) == ("ok", "the last 1 looked at were complete, or made before the deadline (30 s)")


def test_revisions_alone_say_nothing_of_deadlines(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    case = at(embedded, tmp_path)
    with open_writer(RIDES.decisions, case.settings) as writer:
        writer.send(decision("ride-0", [], revision=1))
    (found,) = (one for one in examination.examine(case) if one.check == "decisions")
    assert (found.level, found.says) == ("ok", "the last 1 are revisions of earlier ones, which were not looked at")


def test_what_is_no_decision_is_left_out(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    case = at(embedded, tmp_path)
    with open_writer(replace(RIDES.predictions, name=RIDES.decisions.name), case.settings) as writer:
        writer.send(
            Prediction(prediction_id="p", subject_id="r", model="tip", model_version="1", value=1, predicted_at=NOON)
        )
    producer = Producer({"bootstrap.servers": embedded.bootstrap_servers})
    for value in (None, b"\x00\x00\x00\x00\x03\x02"):
        producer.produce(RIDES.decisions.name, value, b"k")
    assert producer.flush(10) == 0
    (found,) = (one for one in examination.examine(case) if one.level != "ok")
    assert (found.level, found.check) == ("warning", "decisions")
    assert found.says.startswith(
        "2 of the last records cannot be read here, the last one since schema id 3 is not known"
    )
    assert "SCHEMA_REGISTRY_URL" in found.says


@pytest.mark.parametrize(("broken", "code"), [(False, 0), (True, 1)])
def test_the_exit_code_says_whether_something_is_wrong(
    embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: bool, code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in embedded.environment.items():
        monkeypatch.setenv(name, value)
    if broken:
        monkeypatch.setenv("PROCESSING_GUARANTEE", "exactly_once")
    done = CliRunner().invoke(main, ["doctor", "--json"], prog_name="braidstream")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.exit_code, sum(finding["level"] == "wrong" for finding in found)) == (code, code)
    said = CliRunner().invoke(main, ["doctor"], prog_name="braidstream").stdout.splitlines()
    assert max(map(len, said)) <= 80
    assert said[-1] == f"{code} wrong, 0 to be looked at."
    assert ("           $ export PROCESSING_GUARANTEE=at_least_once" in said) is broken


# Topics


def topics_of(**partitions: int) -> Any:
    """Metadata of topics with so many partitions."""
    counted = {
        name: {number: SimpleNamespace(replicas=[1]) for number in range(count)} for name, count in partitions.items()
    }
    return SimpleNamespace(
        topics={name: SimpleNamespace(error=None, partitions=there) for name, there in counted.items()}
    )


def test_of_two_numbers_of_partitions_that_of_the_setting_is_right(tmp_path: Path) -> None:
    metadata = topics_of(ride_started=3, predictions=6)
    configs = {name: {"cleanup.policy": "delete", "max.message.bytes": "1048588"} for name in metadata.topics}
    missing, other = topics.examine(case_of(tmp_path, KAFKA_BOOTSTRAP_SERVERS="k:1"), metadata, configs)
    assert missing.says.startswith("missing: decisions")
    assert other.says.startswith("topic ride_started has 3 partitions where the others have 6")


@pytest.mark.parametrize("ahead", [-60, 1e9])
def test_subjects_that_are_written_elsewhere(tmp_path: Path, ahead: float) -> None:
    (found,) = topics.elsewhere(case_of(tmp_path), {"x.ride_started": NOON + timedelta(seconds=ahead)}, NOON)
    assert found.says.startswith("ride_started has no records, and x.ride_started has, of the last hour: ")
    assert found.mend == ("export TOPIC_PREFIX=x.",)


# Groups that move


RIDE = Partition("ride_started", 0)


def seen(committed: int, at: datetime, count: int = 1) -> Snapshot:
    """A group that has processed so many of 100 records that were written one a second from noon on."""
    member = Member("a", "a", "h", frozenset([RIDE]))
    group = Group("duration", "stable", (member,) * count, {RIDE: committed})
    rows = lags([group], {RIDE: Log(0, 100), RIDE._replace(number=1): Log(0, 0)})
    times = {row.unread: NOON + timedelta(seconds=row.unread.start) for row in rows if row.records}
    return Snapshot(at, [group], dated(rows, times))


@pytest.mark.parametrize(
    ("first", "then", "seconds", "says"),
    [
        (0, 0, 100, "duration did not move for 3 s in partitions [0] of ride_started, where records wait for 103 s"),
        (0, 10, 100, "duration is 93 s behind in ride_started: up to 2 workers have something to do, and it has 1"),
        (0, 0, 5, "duration has 1 member, and is 8.0 s behind"),
        (0, 100, 100, "duration has 1 member, and nothing waits for it"),
    ],
)
def test_a_group_is_looked_at_twice(tmp_path: Path, first: int, then: int, seconds: int, says: str) -> None:
    before = seen(first, NOON + timedelta(seconds=seconds))
    after = seen(then, before.at + timedelta(seconds=3))
    (found,) = groups.examine(case_of(tmp_path), before, after)
    assert found.says.startswith(says)
    assert groups.may_be_stuck(before) is (seconds > 10)


def test_what_is_older_than_it_is_kept_is_kept_for_longer_than_it_is_old(tmp_path: Path) -> None:
    days = 24 * 3600
    late = seen(0, NOON + timedelta(days=5))
    configs = {"ride_started": {"cleanup.policy": "delete", "retention.ms": "3600000"}}
    (found,) = groups.retention(case_of(tmp_path, KAFKA_BOOTSTRAP_SERVERS="k:1"), late, configs)
    kept = int(found.mend[0].rpartition("=")[2]) / 1000
    assert kept >= 2 * 5 * days


def test_a_group_whose_name_a_shell_would_read(tmp_path: Path) -> None:
    left = Group("a; b", "empty", (), {RIDE: 0})
    rows = lags([left], {RIDE: Log(5, 100)})
    snapshot = Snapshot(NOON, [left], rows)
    found = list(groups.examine(case_of(tmp_path, KAFKA_BOOTSTRAP_SERVERS="k:1"), snapshot, snapshot))
    assert ["--group 'a; b'" in command for one in found for command in one.mend] == [True]


def test_workers_are_started_as_the_setting_says(tmp_path: Path) -> None:
    left = Group("tip", "empty", (), {RIDE: 0})
    snapshot = Snapshot(NOON, [left], lags([left], {RIDE: Log(0, 100)}))
    for setting, mend in (("docker compose start {group}", ("docker compose start tip",)), ("", ())):
        (found,) = groups.examine(case_of(tmp_path, START_COMMAND=setting), snapshot, snapshot)
        assert found.mend == mend


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        ("", "there is a model tip, and no worker serves it"),
        ("tip", "decisions wait for tip (EXPECTED_MODELS) until their deadline, and no worker serves it"),
    ],
)
def test_models_that_nobody_serves(tmp_path: Path, expected: str, says: str) -> None:
    member = Member("a", "a", "h", frozenset())
    decider = Group("decision", "stable", (member,), {RIDE: 0, Partition("predictions", 0): 0})
    (found,) = decisions.waiting(case_of(tmp_path, EXPECTED_MODELS=expected), [decider], ["tip"])
    assert found.says == says


@pytest.mark.parametrize("seconds", ["inf", "1e300"])
def test_a_deadline_that_no_worker_takes(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECISION_DEADLINE", seconds)
    with pytest.raises(SettingsError, match="DECISION_DEADLINE"):
        DoctorSettings.load()


# The registry


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry that has every schema, as it has to be."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with run_registry() as started:
        started.answers["GET /config"] = 200, b'{"compatibilityLevel":"BACKWARD"}'
        for topic in RIDES.topics:
            started.answers[f"POST /subjects/{topic.name}-value"] = 200, b'{"id":7}'
            started.answers[f"GET /config/{topic.name}-value"] = 200, b'{"compatibilityLevel":"FULL_TRANSITIVE"}'
        yield started


def of_registry(folder: Path, url: str, **environ: str) -> list[Finding]:
    return list(registry.examine(case_of(folder, SCHEMA_REGISTRY_URL=url, **environ)))


def test_no_registry_is_well_too(tmp_path: Path) -> None:
    assert levels(list(registry.examine(case_of(tmp_path)))) == [("registry", "ok")]


def test_a_registry_that_has_every_schema(server: Registry, tmp_path: Path) -> None:
    assert levels(of_registry(tmp_path, server.url)) == [("registry", "ok"), ("schemas", "ok")]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((401, b"no"), "refuses this user (HTTP 401): see SCHEMA_REGISTRY_USER and SCHEMA_REGISTRY_PASSWORD"),
        ((404, b"<html>"), "does not answer as a registry"),
        ((200, b"<html>"), "does not answer as one"),
        ((500, b"down"), "answers HTTP 500"),
    ],
)
def test_what_is_no_registry(server: Registry, tmp_path: Path, answer: tuple[int, bytes], sentence: str) -> None:
    server.answers["GET /config"] = answer
    (found,) = of_registry(tmp_path, server.url)
    assert found.level == "wrong"
    assert sentence in found.says


def test_a_registry_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        (found,) = of_registry(tmp_path, url)
    assert found.level == "wrong"
    assert "Connection refused" in found.says


def test_an_address_that_is_none(tmp_path: Path) -> None:
    (found,) = of_registry(tmp_path, "registry:8080")
    assert found.says.startswith("SCHEMA_REGISTRY_URL is no address")


def test_a_schema_that_is_not_registered(server: Registry, tmp_path: Path) -> None:
    del server.answers["POST /subjects/predictions-value"]
    _, found = of_registry(tmp_path, server.url)
    assert (found.level, found.mend) == ("warning", ("braidstream topics create",))
    assert found.says.startswith("predictions-value")


def test_a_schema_that_is_not_compatible(server: Registry, tmp_path: Path) -> None:
    del server.answers["POST /subjects/predictions-value"]
    server.answers["POST /compatibility/subjects/predictions-value/versions"] = 200, b'{"is_compatible":false}'
    _, found = of_registry(tmp_path, server.url)
    assert found.level == "wrong"
    assert found.says.startswith("the schema of predictions-value here is not compatible")


@pytest.mark.parametrize("answer", [(200, b'{"compatibilityLevel":"BACKWARD"}'), None])
def test_versions_that_need_not_be_compatible_both_ways(
    server: Registry, tmp_path: Path, answer: tuple[int, bytes] | None
) -> None:
    of_subject = "GET /config/predictions-value"
    if answer is None:
        del server.answers[of_subject]
    else:
        server.answers[of_subject] = answer
    _, found = of_registry(tmp_path, server.url)
    assert found.level == "warning"
    assert "only BACKWARD, not FULL_TRANSITIVE" in found.says
    assert found.mend == (
        "curl -X PUT -H 'Content-Type: application/json' -d '{\"compatibility\": \"FULL_TRANSITIVE\"}' "
        f"{server.url}/config/predictions-value",
    )


# Models


def save_model(folder: Path, estimator: Any, trusted: tuple[str, ...] = ()) -> None:
    rows = np.arange(40, dtype=np.float32).reshape(20, 2)
    save(
        folder / "models" / "duration",
        name="duration",
        estimator=estimator.fit(rows, rows[:, 0]),
        features=FeatureSet(("a", "b"), lambda columns: rows),
        rows=rows,
        schema_id=RIDES.subjects.event_type.latest.local_id,
        metrics={},
        data=DataSummary(rows=20, sha256="00", earliest=None, latest=None),
        trusted=trusted,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model of the name `duration`, and what trains it."""
    save_model(tmp_path, LinearRegression())
    (tmp_path / "consumers" / "duration").mkdir(parents=True)
    (tmp_path / "consumers" / "duration" / "train.py").touch()
    return tmp_path


def of_models(case: Case) -> list[Finding]:
    return list(models.examine(case, served=["tip"]))


def test_models_that_can_be_served(folder: Path) -> None:
    for settings in ({}, {"MODEL_URI": "", "EXPECTED_MODELS": ""}):
        assert levels(of_models(case_of(folder, **settings))) == [("models", "ok")]
    assert levels(of_models(case_of(folder, MODEL_URI=str(folder / "models" / "duration")))) == [("models", "ok")]
    assert levels(of_models(case_of(folder, EXPECTED_MODELS="duration,tip"))) == [("models", "ok")]


def test_a_model_that_is_damaged(folder: Path) -> None:
    (folder / "models" / "duration" / ONNX).write_bytes(b"")
    (found,) = of_models(case_of(folder))
    assert (found.level, found.mend) == ("wrong", ("python -m consumers.duration.train --force",))
    assert "is not the file that model.json describes" in found.says


def change_card(folder: Path, **changes: Any) -> None:
    path = folder / "models" / "duration" / CARD
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_model_that_is_trained_elsewhere(folder: Path) -> None:
    (folder / "models" / "duration" / ONNX).write_bytes(b"")
    (folder / "consumers" / "duration" / "train.py").rename(folder / "duration.py")
    (found,) = of_models(case_of(folder))
    assert (found.level, found.mend) == ("wrong", ())


def test_a_model_of_another_name(folder: Path) -> None:
    change_card(folder, name="tip")
    (found,) = of_models(case_of(folder))
    assert found.level == "wrong"
    assert found.says == "models/duration holds the model tip: the worker of duration refuses it"


def test_a_model_of_another_scikit_learn(folder: Path) -> None:
    change_card(folder, served_by="scikit-learn", libraries={"scikit-learn": "0.1"})
    (found,) = of_models(case_of(folder))
    assert found.level == "wrong"
    assert "was made by scikit-learn 0.1" in found.says


def test_a_model_of_another_schema(folder: Path) -> None:
    change_card(folder, schema_id=7)
    (found,) = of_models(case_of(folder))
    assert found.level == "warning"
    assert "was trained on events of a schema that is not among the versions of ride_started" in found.says


class Own(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator of the application's own."""

    def fit(self, rows: Matrix, target: NDArray[np.float64]) -> Own:
        self.is_fitted_ = True
        return self

    def predict(self, rows: Matrix) -> NDArray[np.float64]:
        return np.zeros(len(rows))


def test_a_model_of_types_that_only_its_worker_trusts(tmp_path: Path) -> None:
    save_model(tmp_path, Own(), trusted=(f"{__name__}.Own",))
    (found,) = of_models(case_of(tmp_path))
    assert found.level == "ok"
    assert found.says.startswith("models/duration can be checked by its own worker only")


def test_a_model_that_is_expected_and_not_there(folder: Path) -> None:
    found = of_models(case_of(folder, EXPECTED_MODELS="duration,speed"))
    assert levels(found) == [("models", "ok"), ("models", "warning")]
    assert found[1].says == "there is no model speed in models/ here, and no worker serves it"


def test_a_model_that_the_settings_name_and_that_is_not_there(folder: Path) -> None:
    (found,) = of_models(case_of(folder, MODEL_URI="models/no"))
    assert found.level == "wrong"
    assert found.says.startswith("there is no model in models/no")
