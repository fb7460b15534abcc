"""Settings: each is read, each refusal names the setting and the reason, and secrets are never said."""

from __future__ import annotations

import os

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient

from braidstream import settings as module
from braidstream.errors import SettingsError
from braidstream.settings import DecisionSettings, HandlerSettings, ScoringSettings, Settings, WorkerSettings
from braidstream.streaming import clients
from decision_service.policy import RideDecisionSettings

SECRET = "correct horse battery staple"


def refusal(kind: type[Settings], **environ: str) -> str:
    with pytest.raises(SettingsError) as raised:
        kind.load(environ)
    return str(raised.value)


def test_any_property_of_librdkafka_passes_through() -> None:
    settings = Settings.load(
        {"KAFKA_BOOTSTRAP_SERVERS": "b:9092", "KAFKA_SASL_USERNAME": "me", "KAFKA_SSL_CA_LOCATION": "/ca"}
    )
    assert settings.kafka == {"bootstrap.servers": "b:9092", "sasl.username": "me", "ssl.ca.location": "/ca"}
    assert settings.bootstrap_servers == "b:9092"


def test_without_a_broker_it_says_what_to_set() -> None:
    with pytest.raises(SettingsError, match=r"KAFKA_BOOTSTRAP_SERVERS is not set: .* `braidstream broker`"):
        _ = Settings.load({}).bootstrap_servers


@pytest.mark.parametrize("name", module._OWN)
def test_what_the_framework_sets_itself_is_refused_by_name(name: str) -> None:
    variable = f"KAFKA_{name.upper().replace('.', '_')}"
    assert f"{variable} cannot be set: {module._OWN[name]}" in refusal(Settings, **{variable: "x"})


@pytest.mark.parametrize("kind", [confluent_kafka.Producer, AdminClient])
def test_a_property_that_librdkafka_does_not_know_is_refused_by_name(kind: type) -> None:
    with pytest.raises(SettingsError, match=r"KAFKA_NO_SUCH_PROPERTY: .*no\.such\.property"):
        clients.make_client(kind, {"bootstrap.servers": "localhost:1", "no.such.property": "x"})


def test_a_value_that_librdkafka_refuses_names_the_variable() -> None:
    with pytest.raises(SettingsError, match="KAFKA_SECURITY_PROTOCOL: "):
        clients.make_client(AdminClient, {"bootstrap.servers": "localhost:1", "security.protocol": "maybe"})


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (Settings, "PARTITIONS", "0"),
        (Settings, "PARTITIONS", "six"),
        (Settings, "REPLICATION_FACTOR", "0"),
        (Settings, "BROKER_TIMEOUT", "0"),
        (Settings, "BROKER_TIMEOUT", "inf"),
        (Settings, "LOG_LEVEL", "loud"),
        (Settings, "LOG_FORMAT", "xml"),
        (WorkerSettings, "PROCESSING_GUARANTEE", "perhaps_once"),
        (WorkerSettings, "BATCH_SIZE", "0"),
        (WorkerSettings, "BATCH_SIZE", "100001"),
        (WorkerSettings, "DEAD_LETTER_RUN", "0"),
        (WorkerSettings, "DEAD_LETTER_SHARE", "1.5"),
        (WorkerSettings, "HTTP_PORT", "65536"),
        (WorkerSettings, "HTTP_HOST", ""),
        (DecisionSettings, "DECISION_DEADLINE", "0"),
        (DecisionSettings, "DEADLINE_GRACE", "-1"),
        (DecisionSettings, "REMEMBER", "nan"),
        (DecisionSettings, "REMEMBER", "inf"),
        (HandlerSettings, "REMEMBER", "9.3e15"),
        (DecisionSettings, "MAX_OPEN", "0"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(kind: type[Settings], name: str, value: str) -> None:
    expected = {"EXPECTED_MODELS": "duration"} if issubclass(kind, DecisionSettings) else {}
    assert f"{name}: " in refusal(kind, **expected, **{name: value})


@pytest.mark.parametrize("name", ["TOPIC_PREFIX", "KAFKA_SASL_USERNAME"])
def test_bytes_that_are_no_text_are_refused_by_name(name: str) -> None:
    assert f"{name}: it is not UTF-8" in refusal(Settings, **{name: os.fsdecode(b"\xff")})


def test_every_wrong_setting_is_named_at_once() -> None:
    message = refusal(WorkerSettings, BATCH_SIZE="none", LOG_LEVEL="loud", KAFKA_GROUP_ID="mine")
    assert all(name in message for name in ("BATCH_SIZE", "LOG_LEVEL", "KAFKA_GROUP_ID"))


def test_a_guarantee_that_cannot_honour_a_property_refuses_it() -> None:
    message = refusal(WorkerSettings, PROCESSING_GUARANTEE="at_least_once", KAFKA_TRANSACTION_TIMEOUT_MS="5000")
    assert "KAFKA_TRANSACTION_TIMEOUT_MS does nothing with PROCESSING_GUARANTEE=at_least_once" in message


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"HTTP_HOST": "0.0.0.0"}, "HTTP_HOST does nothing without HTTP_PORT"),
        ({"HTTP_PORT": "0", "LOG_LEVEL": "warning"}, "LOG_LEVEL=warning leaves that out"),
    ],
)
def test_http_that_nobody_would_find_is_refused(environ: dict[str, str], message: str) -> None:
    assert message in refusal(WorkerSettings, **environ)


def test_the_longest_time_between_two_polls_is_kafkas() -> None:
    assert WorkerSettings().max_poll_interval == 300
    settings = WorkerSettings.load({"KAFKA_MAX_POLL_INTERVAL_MS": "12500"})
    assert settings.max_poll_interval == 12.5
    with pytest.raises(SettingsError, match="KAFKA_MAX_POLL_INTERVAL_MS=long is no number of milliseconds"):
        _ = WorkerSettings(kafka={"max.poll.interval.ms": "long"}).max_poll_interval


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"SCHEMA_REGISTRY_USER": "me"}, "set together"),
        ({"SCHEMA_REGISTRY_PASSWORD": SECRET}, "set together"),
        ({"SCHEMA_REGISTRY_USER": "me", "SCHEMA_REGISTRY_PASSWORD": SECRET}, "without SCHEMA_REGISTRY_URL"),
    ],
)
def test_half_of_the_registrys_credentials_is_refused(environ: dict[str, str], message: str) -> None:
    assert message in refusal(Settings, **environ)


def test_expected_models_are_separated_by_commas() -> None:
    settings = DecisionSettings.load({"EXPECTED_MODELS": " duration, tip,,"})
    assert settings.expected_models == ("duration", "tip")


@pytest.mark.parametrize("value", ["", ",", "duration,duration"])
def test_expected_models_are_some_and_distinct(value: str) -> None:
    message = refusal(DecisionSettings, EXPECTED_MODELS=value)
    assert "EXPECTED_MODELS: name at least one model, each once" in message


def test_a_setting_without_a_default_is_asked_for() -> None:
    assert "EXPECTED_MODELS: Field required" in refusal(DecisionSettings)


def test_nothing_but_what_is_given_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPIC_PREFIX", "elsewhere.")
    assert Settings.load({"PARTITIONS": "3"}) == Settings(partitions=3)
    assert Settings.load().topic_prefix == "elsewhere."


class Thresholds(Settings):
    thresholds: dict[str, float]


def test_a_setting_of_several_values_that_is_no_json_is_refused_by_name() -> None:
    assert '"thresholds"' in refusal(Thresholds, THRESHOLDS="spam=0.5")
    assert Thresholds.load({"THRESHOLDS": '{"spam": 0.5}'}).thresholds == {"spam": 0.5}


def test_names_get_the_prefix() -> None:
    assert Settings.load({"TOPIC_PREFIX": "test-"}).named("decisions") == "test-decisions"


@pytest.mark.parametrize("kind", [Settings, WorkerSettings, ScoringSettings, DecisionSettings, RideDecisionSettings])
def test_every_setting_says_what_it_is(kind: type[Settings]) -> None:
    assert all(field.description for field in kind.model_fields.values())


def test_settings_do_not_change() -> None:
    settings = Settings.load({})
    with pytest.raises(ValueError, match="frozen"):
        settings.partitions = 7  # type: ignore[misc]


def test_secrets_are_never_shown() -> None:
    settings = Settings.load(
        {
            "SCHEMA_REGISTRY_URL": "http://registry",
            "SCHEMA_REGISTRY_USER": "me",
            "SCHEMA_REGISTRY_PASSWORD": SECRET,
            "KAFKA_SASL_PASSWORD": SECRET,
        }
    )
    for shown in (repr(settings), str(settings), settings.model_dump_json(exclude={"kafka"})):
        assert SECRET not in shown


def test_secrets_are_never_in_a_refusal() -> None:
    message = refusal(
        WorkerSettings,
        SCHEMA_REGISTRY_PASSWORD=SECRET,
        KAFKA_SASL_PASSWORD=SECRET,
        KAFKA_GROUP_ID=SECRET,
        BATCH_SIZE=SECRET,
    )
    assert SECRET not in message
    assert "BATCH_SIZE" in message


def test_a_clients_refusal_does_not_say_the_password() -> None:
    with pytest.raises(SettingsError) as raised:
        clients.make_client(
            AdminClient,
            {"bootstrap.servers": "localhost:1", "sasl.password": SECRET, "sasl.username": "me", "no.such": "x"},
        )
    assert SECRET not in str(raised.value)


def of_kafka(**kafka: str) -> Settings:
    return Settings(kafka={"bootstrap.servers": "localhost:1", **{k.replace("_", "."): v for k, v in kafka.items()}})


@pytest.mark.parametrize(
    ("kafka", "assignment", "name"),
    [
        ({"partition_assignment_strategy": "roundrobin"}, "range", "KAFKA_PARTITION_ASSIGNMENT_STRATEGY=roundrobin"),
        ({"partition_assignment_strategy": "range"}, "cooperative", "it needs cooperative-sticky"),
        ({"group_protocol": "consumer", "group_remote_assignor": "uniform"}, "range", "KAFKA_GROUP_REMOTE_ASSIGNOR"),
    ],
)
def test_an_assignor_that_a_worker_cannot_work_with_is_refused(
    kafka: dict[str, str], assignment: clients.Assignment, name: str
) -> None:
    with pytest.raises(SettingsError, match=name):
        clients.consumer_config(of_kafka(**kafka), "tip", assignment)


@pytest.mark.parametrize(
    ("protocol", "assignment", "eager", "expected"),
    [
        ("classic", "range", True, {"partition.assignment.strategy": "range", "session.timeout.ms": "10000"}),
        ("classic", "cooperative", False, {"partition.assignment.strategy": "cooperative-sticky"}),
        ("consumer", "range", False, {"group.remote.assignor": "range"}),
        ("consumer", "cooperative", False, {}),
    ],
)
def test_a_workers_consumer_is_set_up_for_its_protocol(
    protocol: str, assignment: clients.Assignment, eager: bool, expected: dict[str, str]
) -> None:
    settings = of_kafka(group_protocol=protocol)
    config = clients.consumer_config(settings, "tip", assignment)
    assert expected.items() <= config.items()
    assert clients.is_eager(settings, assignment) is eager
    assert config["auto.offset.reset"] == "error"
    assert config["isolation.level"] == "read_committed"
    refused_by_the_new_protocol = {"partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms"}
    assert protocol == "classic" or not refused_by_the_new_protocol & config.keys()
