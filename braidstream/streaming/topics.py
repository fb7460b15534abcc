"""The topics of a pipeline: created with what they need, and checked before anything is read or written."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from braidstream.errors import FatalError, SettingsError, UnavailableError
from braidstream.pipelines import Pipeline
from braidstream.settings import Settings

ROOM = 64 * 1024
"""Bytes that a dead letter, or the state of a subject, may be larger than the record it holds."""

_POLL = 1.0
_CALL_TIMEOUT = 10.0
MAX_BYTES = "max.message.bytes"
_BROKER_DEFAULT_MAX_BYTES = 1_048_588
_BATCH_SIZE = 1_000_000
"""librdkafka's default for `batch.size`."""


class TopicSpec(NamedTuple):
    """A topic as it has to be, by its full name; `holds` are the topics whose records it has to have room for."""

    name: str
    partitions: int
    config: Mapping[str, str]
    holds: tuple[str, ...] = ()


def specs(pipeline: Pipeline[Any], settings: Settings) -> list[TopicSpec]:
    """Every topic of the pipeline; all have the same number of partitions, since they are joined by it."""
    inputs = [int(t.config.get(MAX_BYTES, _BROKER_DEFAULT_MAX_BYTES)) for t in pipeline.topics]
    larger = {MAX_BYTES: str(max(inputs) + ROOM)}
    read = (settings.named(pipeline.subjects.name), settings.named(pipeline.predictions.name))
    state = pipeline.decision_state
    plain = [topic for topic in pipeline.topics if topic != state]
    return [
        *(TopicSpec(settings.named(topic.name), settings.partitions, topic.config) for topic in plain),
        TopicSpec(settings.named(state.name), settings.partitions, {**state.config, **larger}, read[:1]),
        TopicSpec(settings.named(pipeline.dead_letters), settings.partitions, larger, read),
    ]


def create(client: AdminClient, wanted: Sequence[TopicSpec], replication_factor: int | None) -> list[str]:
    """Create the topics that are missing; returns their names. Raises `FatalError` when the broker refuses one."""
    least = str(_broker_max_bytes(client) + ROOM)
    new = []
    for spec in wanted:
        config = dict(spec.config)
        if spec.holds:
            config[MAX_BYTES] = max(config[MAX_BYTES], least, key=int)
        new.append(NewTopic(spec.name, spec.partitions, replication_factor or -1, config=config))
    created = []
    for name, future in client.create_topics(new, operation_timeout=_CALL_TIMEOUT).items():
        try:
            future.result()
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise FatalError(f"topic {name} was not created: {error.args[0].str()}") from error
    return created


def await_broker(
    client: AdminClient,
    settings: Settings,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Any:
    """The cluster's metadata, once a broker answers; raises `UnavailableError` after `BROKER_TIMEOUT` seconds."""
    log = structlog.get_logger()
    deadline = clock() + settings.broker_timeout
    while True:
        try:
            return client.list_topics(timeout=min(_CALL_TIMEOUT, max(1.0, deadline - clock())))
        except KafkaException as error:
            if clock() >= deadline:
                raise UnavailableError(
                    f"no broker answers at {settings.bootstrap_servers} within {settings.broker_timeout:g} s "
                    "(BROKER_TIMEOUT): is it running, and is KAFKA_BOOTSTRAP_SERVERS right?"
                ) from error
            log.warning("no broker answers yet", at=settings.bootstrap_servers, detail=error.args[0].str())
            sleep(_POLL)


def answers(client: AdminClient) -> Callable[[], bool]:
    """Asks whether a broker answers at once."""

    def ask() -> bool:
        try:
            client.list_topics(timeout=2.0)
        except KafkaException:
            return False
        return True

    return ask


def check(
    client: AdminClient,
    wanted: Sequence[TopicSpec],
    settings: Settings,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait for the topics to be there, as they have to be.

    Raises `SettingsError` on a wrong number of partitions, a changelog that is not compacted, or topics that do not
    take what is written to them, and `UnavailableError` when one is still missing after `BROKER_TIMEOUT` seconds.
    """
    deadline = clock() + settings.broker_timeout
    while True:
        topics = await_broker(client, settings, clock, sleep).topics
        missing = [spec.name for spec in wanted if spec.name not in topics or topics[spec.name].error is not None]
        if not missing:
            break
        if clock() >= deadline:
            raise UnavailableError(
                f"topics are missing: {', '.join(missing)}; create them with `braidstream topics create --pipeline …`"
            )
        structlog.get_logger().warning("topics are missing", topics=missing)
        sleep(_POLL)
    for spec in wanted:
        if (found := len(topics[spec.name].partitions)) != spec.partitions:
            raise SettingsError(
                f"topic {spec.name} has {found} partitions, not {spec.partitions} (PARTITIONS): all topics of a "
                "pipeline need the same number. Set PARTITIONS to it if the others have as many, else create it again."
            )
    # Who only writes to a topic may not be allowed to ask for its settings.
    if any(spec.config for spec in wanted):
        configs = configs_of(
            client, sorted({name for spec in wanted for name in (spec.name, *spec.holds)} & topics.keys())
        )
        for spec in wanted:
            check_config(spec, configs, settings)


def identity(client: AdminClient, name: str) -> str:
    """What tells this topic from every other, also from one of its name that is made when it was deleted.

    Raises `FatalError` when the broker does not tell.
    """
    try:
        metadata = client.list_topics(timeout=_CALL_TIMEOUT)
        if is_embedded(metadata):
            return f"{name} (cluster {metadata.cluster_id})"
        described = client.describe_topics(TopicCollection([name]), request_timeout=_CALL_TIMEOUT)[name].result()
    except KafkaException as error:
        raise FatalError(f"the broker does not tell the id of topic {name}: {error.args[0].str()}") from error
    return f"{name} (id {described.topic_id}, cluster {metadata.cluster_id})"


def is_embedded(metadata: Any) -> bool:
    """Whether this is librdkafka's in-process broker, which keeps no transactions and no topic settings."""
    return str(metadata.cluster_id).startswith("mockCluster")


def _broker_max_bytes(client: AdminClient) -> int:
    """What topics take that have no limit of their own; Kafka's default where that must not be asked."""
    brokers = client.list_topics(timeout=_CALL_TIMEOUT).brokers
    resource = ConfigResource(ResourceType.BROKER, str(min(brokers)))
    try:
        return int(
            client.describe_configs([resource], request_timeout=_CALL_TIMEOUT)[resource]
            .result()["message.max.bytes"]
            .value
        )
    except KafkaException:
        return _BROKER_DEFAULT_MAX_BYTES


def configs_of(client: AdminClient, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """The settings of topics, by name; raises `FatalError` when they cannot be read."""
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    found = {}
    for resource, future in client.describe_configs(resources, request_timeout=_CALL_TIMEOUT).items():
        try:
            found[resource.name] = {name: entry.value for name, entry in future.result().items()}
        except KafkaException as error:
            raise FatalError(f"the settings of topic {resource.name} cannot be read: {error.args[0].str()}") from error
    return found


def check_config(spec: TopicSpec, configs: Mapping[str, Mapping[str, str]], settings: Settings) -> None:
    """Refuse what would lose decisions, or stop every worker at the first record that is large.

    `configs` are the settings of the topic and of those that it holds; raises `SettingsError`.
    """
    policy, largest = configs[spec.name]["cleanup.policy"], int(configs[spec.name][MAX_BYTES])
    if spec.config.get("cleanup.policy", policy) != policy:
        raise SettingsError(
            f"topic {spec.name} has cleanup.policy={policy}, not compact: what its worker remembers would be "
            "lost when its records are deleted. Change it, or delete the topic and run `braidstream topics create`."
        )
    batch = _batch_size(settings)
    if largest < batch:
        raise SettingsError(
            f"topic {spec.name} has {MAX_BYTES}={largest}, less than a batch of records may have "
            f"(KAFKA_BATCH_SIZE={batch}): set KAFKA_BATCH_SIZE to {largest} or less, or raise {MAX_BYTES}."
        )
    for held in configs.keys() & spec.holds:
        if largest < (least := int(configs[held][MAX_BYTES]) + ROOM):
            raise SettingsError(
                f"topic {spec.name} has {MAX_BYTES}={largest}, and holds records of {held} with {ROOM} bytes beside "
                f"them: raise it to {least}, or the first record that is too large for it stops every worker."
            )


def least_max_bytes(spec: TopicSpec, configs: Mapping[str, Mapping[str, str]], settings: Settings) -> int:
    """The least `MAX_BYTES` of a topic that `check_config` takes."""
    held = [int(configs[name][MAX_BYTES]) + ROOM for name in spec.holds if name in configs]
    return max(_batch_size(settings), *held, 0)


def _batch_size(settings: Settings) -> int:
    return int(settings.kafka.get("batch.size", _BATCH_SIZE))
