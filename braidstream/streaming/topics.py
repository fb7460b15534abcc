"""The topics of a pipeline: created with what they need, and checked before anything is read or written."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from braidstream.errors import FatalError, SettingsError, UnavailableError
from braidstream.pipeline import Pipeline
from braidstream.settings import Settings

ROOM = 64 * 1024
"""Bytes that a dead letter, or the state of a subject, may be larger than the record it holds."""

_POLL = 1.0
_CALL_TIMEOUT = 10.0
_BROKER_DEFAULT_MAX_BYTES = 1_048_588


class TopicSpec(NamedTuple):
    """A topic as it has to be, by its full name."""

    name: str
    partitions: int
    config: Mapping[str, str]


def specs(pipeline: Pipeline[Any], settings: Settings) -> list[TopicSpec]:
    """Every topic of the pipeline; all have the same number of partitions, since they are joined by it."""
    inputs = [int(t.config.get("max.message.bytes", _BROKER_DEFAULT_MAX_BYTES)) for t in pipeline.topics]
    larger = {"max.message.bytes": str(max(inputs) + ROOM)}
    named = [(topic.name, topic.config) for topic in pipeline.topics if topic != pipeline.decision_state]
    named += [(pipeline.decision_state.name, {**pipeline.decision_state.config, **larger})]
    named += [(pipeline.dead_letters, larger)]
    return [TopicSpec(settings.named(name), settings.partitions, config) for name, config in named]


def create(client: AdminClient, wanted: Sequence[TopicSpec], replication_factor: int | None) -> list[str]:
    """Create the topics that are missing; returns their names. Raises `FatalError` when the broker refuses one."""
    new = [NewTopic(spec.name, spec.partitions, replication_factor or -1, config=dict(spec.config)) for spec in wanted]
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

    Raises `SettingsError` on a wrong number of partitions or a changelog that is not compacted, `UnavailableError`
    when a topic is still missing after `BROKER_TIMEOUT` seconds.
    """
    deadline = clock() + settings.broker_timeout
    while True:
        topics = await_broker(client, settings, clock, sleep).topics
        missing = [spec.name for spec in wanted if spec.name not in topics or topics[spec.name].error is not None]
        if not missing:
            break
        if clock() >= deadline:
            raise UnavailableError(
                f"topics are missing: {', '.join(missing)}; create them with `braidstream topics create`"
            )
        structlog.get_logger().warning("topics are missing", topics=missing)
        sleep(_POLL)
    for spec in wanted:
        if (found := len(topics[spec.name].partitions)) != spec.partitions:
            raise SettingsError(
                f"topic {spec.name} has {found} partitions, not {spec.partitions} (PARTITIONS): all topics of a "
                "pipeline need the same number. Set PARTITIONS to it, or create the topic again."
            )
    _check_compaction(client, wanted)


def is_embedded(metadata: Any) -> bool:
    """Whether this is librdkafka's in-process broker, which keeps no transactions and no topic settings."""
    return str(metadata.cluster_id).startswith("mockCluster")


def _check_compaction(client: AdminClient, wanted: Sequence[TopicSpec]) -> None:
    compacted = [spec.name for spec in wanted if spec.config.get("cleanup.policy") == "compact"]
    if not compacted:
        return
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in compacted]
    for resource, future in client.describe_configs(resources, request_timeout=_CALL_TIMEOUT).items():
        try:
            policy = future.result()["cleanup.policy"].value
        except KafkaException as error:
            raise FatalError(f"the settings of topic {resource.name} cannot be read: {error.args[0].str()}") from error
        if policy != "compact":
            raise SettingsError(
                f"topic {resource.name} has cleanup.policy={policy}, not compact: open decisions would be lost when "
                "its records are deleted. Change it, or delete the topic and run `braidstream topics create`."
            )
