"""`braidstream doctor` on real Kafka: what only Kafka can break, and the commands that mend it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Never

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic
from testcontainers.core.container import DockerContainer

from braidstream.cli.groups import Groups
from braidstream.doctor import broker
from braidstream.doctor.case import Case
from braidstream.doctor.examination import examine
from braidstream.doctor.findings import Finding
from braidstream.doctor.settings import DoctorSettings
from braidstream.errors import FatalError
from braidstream.registry import COMPATIBILITY, RegistryClient, schemas_for
from braidstream.streaming import topics
from braidstream.streaming.ports import Partition
from rides.pipeline import RIDES
from tests.containers import LOGIN

pytestmark = pytest.mark.docker

PARTITIONS = 2
TOPICS = ("ride_started", "predictions")


@pytest.fixture
def case(kafka: str, topic_prefix: str, tmp_path: Path) -> Case:
    """The rides, under a prefix of their own, in a folder with the starts of their workers."""
    for module in ("consumers/duration", "consumers/tip", "decision_service"):
        (tmp_path / module).mkdir(parents=True)
        (tmp_path / module / "__main__.py").touch()
    settings = DoctorSettings.load({"KAFKA_BOOTSTRAP_SERVERS": kafka})
    changes = {"topic_prefix": topic_prefix, "partitions": PARTITIONS, "expected_models": ("duration", "tip")}
    return Case(settings.model_copy(update=changes), RIDES, None, tmp_path)


@pytest.fixture
def client(kafka: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka})


@pytest.fixture
def made(case: Case, client: AdminClient) -> Case:
    """The same with its topics."""
    topics.create(client, topics.specs(case.pipeline, case.settings), 1)
    return case


def diagnosis(case: Case) -> dict[str, list[Finding]]:
    """What is not as it has to be, by check."""
    found: dict[str, list[Finding]] = {}
    for finding in examine(case, sleep=lambda seconds: None):
        if finding.level != "ok":
            found.setdefault(finding.check, []).append(finding)
    return found


def write(case: Case, topic: str, partition: int = 0, count: int = 1, ago: float = 0.0) -> None:
    producer = Producer({"bootstrap.servers": case.settings.bootstrap_servers})
    for _ in range(count):
        at = int((time.time() - ago) * 1000)
        producer.produce(case.settings.named(topic), b"x", b"k", partition=partition, timestamp=at)
    assert producer.flush(20) == 0


def commit(case: Case, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
    config = {"bootstrap.servers": case.settings.bootstrap_servers, "group.id": case.settings.named(group)}
    with closing(Consumer(config)) as consumer:
        at = [TopicPartition(case.settings.named(topic), number, offset) for (topic, number), offset in offsets.items()]
        consumer.commit(offsets=at, asynchronous=False)


@contextmanager
def members(case: Case, groups: Mapping[str, tuple[int, Sequence[str]]]) -> Iterator[None]:
    """As many members of each group as it says, on these topics, none of which processes anything."""
    with ExitStack() as stack:
        started: list[Consumer] = []
        for group, (count, names) in groups.items():
            for _ in range(count):
                config = {"group.id": case.settings.named(group), "heartbeat.interval.ms": 200}
                fixed = {"bootstrap.servers": case.settings.bootstrap_servers, "enable.auto.commit": False}
                consumer = stack.enter_context(closing(Consumer({**config, **fixed})))
                consumer.subscribe([case.settings.named(name) for name in names])
                started.append(consumer)
        asked = Groups(
            AdminClient({"bootstrap.servers": case.settings.bootstrap_servers}), [*map(case.settings.named, groups)]
        )
        partitions = [Partition(case.settings.named(name), n) for name in TOPICS for n in range(PARTITIONS)]
        wanted = {case.settings.named(group): spread(count, len(names)) for group, (count, names) in groups.items()}
        found: dict[str, list[int]] = {}
        deadline = time.monotonic() + 30
        while found != wanted:
            assert time.monotonic() < deadline, found
            for consumer in started:
                consumer.poll(0.02)
            found = {g.name: sorted(len(member.partitions) for member in g.members or ()) for g in asked.of(partitions)}
        yield


def spread(count: int, topics: int) -> list[int]:
    """How many partitions of this many topics each of the members is given."""
    each = PARTITIONS * topics // min(count, PARTITIONS)
    return sorted([each] * min(count, PARTITIONS) + [0] * (count - PARTITIONS))


# Reaching the broker


def reached(case: Case, **properties: str) -> Finding:
    kafka = {**case.settings.kafka, **{name.replace("_", "."): value for name, value in properties.items()}}
    settings = case.settings.model_copy(update={"kafka": kafka})
    try:
        return broker.reached(settings, broker.reach(settings, patience=0)[1])
    except broker.Unreachable as error:
        return error.finding


def test_a_listener_that_speaks_no_tls(case: Case) -> None:
    found = reached(case, security_protocol="ssl")
    assert found.level == "wrong"
    assert "TLS fails: does that port speak it" in found.says


@pytest.mark.parametrize(
    ("password", "says"),
    [
        (LOGIN[1], "Kafka answers at"),
        ("wrong", "the login is refused: see KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"),
        (None, "does that port want TLS or a login (KAFKA_SECURITY_PROTOCOL)?"),
    ],
)
@pytest.mark.usefixtures("kafka")
def test_a_listener_that_wants_a_login(case: Case, login_port: int, password: str | None, says: str) -> None:
    servers = {"bootstrap_servers": f"127.0.0.1:{login_port}"}
    login = {"security_protocol": "sasl_plaintext", "sasl_mechanism": "PLAIN", "sasl_username": LOGIN[0]}
    found = reached(case, **servers, **({**login, "sasl_password": password} if password is not None else {}))
    assert found.level == ("ok" if password == LOGIN[1] else "wrong")
    assert says in found.says


# Topics


def test_topics_that_are_not_as_they_have_to_be(case: Case, client: AdminClient) -> None:
    named = case.settings.named
    configs = {
        "ride_started": {"max.message.bytes": "900000"},
        "predictions": {"min.insync.replicas": "2"},
        "decision_state": {"max.message.bytes": "1200000"},
        "decisions": {},
    }
    partitions = {name: 3 if name == "decisions" else PARTITIONS for name in configs}
    wanted = [NewTopic(named(name), partitions[name], 1, config=config) for name, config in configs.items()]
    elsewhere = f"{named('elsewhere.')}ride_started"
    for future in client.create_topics([*wanted, NewTopic(elsewhere, 1, 1)]).values():
        future.result(20)
    write(case, "elsewhere.ride_started")

    found = {finding.says: finding.mend for finding in diagnosis(case)["topics"]}

    def mend(start: str) -> tuple[str, ...]:
        (commands,) = (commands for says, commands in found.items() if says.startswith(start))
        return commands

    def alter(name: str, setting: str) -> tuple[str, ...]:
        tool = f"kafka-configs.sh --bootstrap-server {case.settings.bootstrap_servers}"
        return (f"{tool} --alter --entity-type topics --entity-name {named(name)} --add-config {setting}",)

    assert mend(f"missing: {named('dead_letters')}") == ("braidstream topics create",)
    assert (
        mend(f"topic {named('decisions')} has 3 partitions where the others have 2")[1] == "braidstream topics create"
    )
    assert mend(f"topic {named('ride_started')} has max.message.bytes=900000, less than a batch") == alter(
        "ride_started", "max.message.bytes=1000000"
    )
    assert mend(f"topic {named('predictions')} has min.insync.replicas=2 and 1 replicas") == alter(
        "predictions", "min.insync.replicas=1"
    )
    assert mend(f"topic {named('decision_state')} has cleanup.policy=delete, not compact") == alter(
        "decision_state", "cleanup.policy=compact"
    )
    assert mend(f"{named('ride_started')} has no records, and ") != ()
    assert len(found) == 6


def test_another_number_of_partitions(made: Case) -> None:
    write(made, "ride_started")
    other = replace(made, settings=made.settings.model_copy(update={"partitions": 6}))
    (found,) = diagnosis(other)["topics"]
    assert found.says == "all topics have 2 partitions, and PARTITIONS is 6: programs refuse to start"
    assert found.mend == ("export PARTITIONS=2",)


# Groups


def test_groups_that_work(made: Case) -> None:
    write(made, "ride_started")
    workers = {
        "duration": (1, ["ride_started"]),
        "tip": (1, ["ride_started"]),
        "decision": (1, ["ride_started", "predictions"]),
    }
    for group in workers:
        commit(made, group, {("ride_started", 0): 1})
    with members(made, workers):
        assert diagnosis(made) == {}


def test_groups_that_do_not(made: Case) -> None:
    write(made, "ride_started", count=5, ago=100)
    write(made, "ride_started", partition=1, count=5, ago=100)
    started = {("ride_started", 0): 5, ("ride_started", 1): 5}
    commit(made, "tip", {("ride_started", 0): 2, ("ride_started", 1): 99})
    commit(made, "reader", {("predictions", 0): 0})
    commit(made, "decision", {**started, ("predictions", 0): 0})
    commit(made, "duration", {("ride_started", 0): 0})
    for model in ("speed", "way"):
        (made.folder / "models" / model).mkdir(parents=True)
        (made.folder / "models" / model / "model.json").write_text("{}")
    workers = {
        "duration": (1, ["ride_started"]),
        "speed": (3, ["ride_started"]),
        "way": (1, ["ride_started"]),
        "decision": (1, ["ride_started", "predictions"]),
    }
    commit(made, "speed", started)
    with members(made, workers):
        found = diagnosis(made)
    named = made.settings.named
    says = {finding.says: finding for finding in (*found["groups"], *found["decisions"])}

    def only(start: str) -> Finding:
        (finding,) = (finding for sentence, finding in says.items() if sentence.startswith(start))
        return finding

    gone = only(f"{named('tip')} goes on from records that are gone")
    assert f"{named('ride_started')} [1] from offset 99 on, though it ends at 5" in gone.says
    assert gone.mend[0].endswith(f"--topic {named('ride_started')}:1 --reset-offsets --to-earliest --execute")
    deserted = only(f"{named('tip')} has no members, and 3 records wait, the first for 1")
    assert (deserted.level, deserted.mend) == ("wrong", ("python -m consumers.tip",))
    delete = made.kafka("consumer-groups", f"--delete --group {named('reader')}")
    reader = only(f"{named('reader')} has no members, and nothing waits yet")
    assert (reader.level, reader.mend) == ("warning", ())
    assert reader.says.endswith(f"deleted: {delete}")
    assert f"in partitions [0, 1] of {named('ride_started')}" in only(f"{named('duration')} did not move for").says
    only(f"of the 3 members of {named('speed')}, 1 without partitions: no topic that it reads has more than 2")
    tip = only("decisions wait for tip (EXPECTED_MODELS) until their deadline, and no worker serves it")
    assert (tip.level, tip.mend) == ("wrong", ("python -m consumers.tip",))
    speed = only("decisions do not wait for speed, way, served by workers")
    assert speed.mend == ("export EXPECTED_MODELS=duration,tip,speed,way",)


def test_whoever_may_not_ask_for_the_settings_of_topics_is_told_of_groups_and_models(
    made: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Never:
        raise FatalError("not authorized")

    monkeypatch.setattr(topics, "configs_of", refuse)
    with members(made, {"decision": (1, TOPICS), "duration": (1, TOPICS[:1])}):
        found = diagnosis(made)
    assert "could not be checked: not authorized" in {finding.says for finding in found["groups"]}
    assert [finding.says[:22] for finding in found["decisions"]] == ["decisions wait for tip"]
    assert [finding.says[:24] for finding in found["models"]] == ["there is no model tip in"]


# Transactions, clocks, retention: and the commands, as they are given


def test_what_holds_readers_back_and_what_is_deleted_too_early(
    made: Case, client: AdminClient, kafka_container: DockerContainer
) -> None:
    named = made.settings.named
    write(made, "ride_started", partition=1, ago=-3600)
    write(made, "predictions", ago=5400)
    commit(made, "decision", {("predictions", 0): 0, ("ride_started", 1): 1})
    producer = Producer({"bootstrap.servers": made.settings.bootstrap_servers, "transactional.id": named("open")})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(named("ride_started"), b"x", partition=0, timestamp=int((time.time() - 60) * 1000))
    assert producer.flush(20) == 0
    entry = ConfigEntry("retention.ms", "7200000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, named("predictions"), incremental_configs=[entry])
    client.incremental_alter_configs([resource])[resource].result(20)

    found = diagnosis(made)
    (transaction,) = found["transactions"]
    assert transaction.level == "wrong"
    assert f"holds back the readers of {named('ride_started')} [0] at offset 0" in transaction.says
    (clock,) = found["clocks"]
    assert clock.says.startswith(f"{named('ride_started')} has records that are written 60 min from now")
    (retention,) = (finding for finding in found["groups"] if "keeps records for" in finding.says)
    assert f"{named('predictions')} keeps records for 2 h, and the first that {named('decision')} has" in retention.says

    mend = " && ".join((*transaction.mend, *retention.mend))
    code, output = kafka_container.get_wrapped_container().exec_run(["sh", "-c", f"PATH=/opt/kafka/bin:$PATH; {mend}"])
    assert code == 0, output
    mended = diagnosis(made)
    assert "transactions" not in mended
    assert not [finding for finding in mended["groups"] if "keeps records for" in finding.says]


# The registry


def test_schemas_in_a_real_registry(case: Case, registry: str) -> None:
    with_registry = replace(case, settings=case.settings.model_copy(update={"schema_registry_url": registry}))
    subjects = {topic.name: f"{case.settings.named(topic.name)}-value" for topic in RIDES.topics}
    client = RegistryClient(registry)
    client.register(subjects["predictions"], '{"type":"record","name":"Other","fields":[{"name":"n","type":"long"}]}')
    client.require(subjects["predictions"], COMPATIBILITY)
    client.register(subjects["decisions"], RIDES.decisions.event_type.latest.text)
    client.require(subjects["decisions"], "BACKWARD")

    schemas_for(with_registry.settings, [RIDES.subjects.event_type]).id_of(
        RIDES.subjects.event_type, f"{case.settings.named(RIDES.subjects.name)}-value"
    )

    predictions, decisions, state = diagnosis(with_registry)["schemas"]
    assert predictions.says.startswith(f"the schema of {subjects['predictions']} here is not compatible")
    assert decisions.says.startswith(f"{subjects['decisions']} takes versions that are only BACKWARD")
    assert state.says == f"{subjects['decision_state']} has not the version of this installation yet"
    assert [finding.level for finding in (predictions, decisions, state)] == ["wrong", "warning", "warning"]
