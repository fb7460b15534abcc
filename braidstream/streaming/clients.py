"""Makes confluent-kafka's clients from the settings: what each is set to, and why."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import MappingProxyType
from typing import Any, Literal

import confluent_kafka
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import ListOffsetsResultInfo, OffsetSpec

from braidstream.errors import RetriableError, SettingsError, UnavailableError
from braidstream.logs import client_logger
from braidstream.settings import Settings
from braidstream.streaming.ports import Consumer, Partition, Producer

Assignment = Literal["cooperative", "range"]

FETCH = {"fetch.queue.backoff.ms": "10", "queued.min.messages": "100000"}
"""By default librdkafka waits a second before it fetches again after its queue was full: a fast consumer starves."""

TRANSACTION = {"transaction.timeout.ms": "10000", "message.timeout.ms": "10000", "retry.backoff.ms": "1"}
"""Small transactions back to back meet CONCURRENT_TRANSACTIONS: the default back-off of 100 ms would add to latency."""

PRODUCER: dict[str, Any] = {
    "enable.idempotence": "true",
    "partitioner": "murmur2_random",
    "linger.ms": "5",
    "queue.buffering.max.messages": "1000000",
    # Hearing of every success would cost up to half as much as sending.
    "delivery.report.only.error": True,
    # The topics' max.message.bytes are the limits, and they hold for what is compressed; this one does not.
    "compression.type": "lz4",
    "message.max.bytes": str(32 * 1024 * 1024),
}
# Taking over from a killed worker waits for the session timeout: 45 s by default.
_CLASSIC_GROUP = {"session.timeout.ms": "10000", "heartbeat.interval.ms": "3000"}


def _base(settings: Settings, name: str) -> dict[str, Any]:
    settings.bootstrap_servers  # noqa: B018 - says what to set when it is missing
    return {"client.id": name, **settings.kafka}


def make_client(kind: Callable[..., Any], config: Mapping[str, Any]) -> Any:
    """A client of this kind; raises `SettingsError` with the environment's name of a property that is refused."""
    try:
        return kind(dict(config), logger=client_logger())
    except (KafkaException, ValueError, TypeError) as error:
        cause = error.args[0] if error.args else error
        message = cause.str() if isinstance(cause, KafkaError) else str(cause)
        for name in sorted(config, key=len, reverse=True):
            if f'"{name}"' in message:
                message = f"KAFKA_{name.upper().replace('.', '_')}: {message}"
                break
        raise SettingsError(f"librdkafka refuses its configuration: {message}") from None


def is_eager(settings: Settings, assignment: Assignment) -> bool:
    """Whether a group rebalances by giving up everything first: the classic protocol's range assignor does."""
    return settings.kafka.get("group.protocol", "classic") == "classic" and assignment == "range"


def is_silent(settings: Settings) -> bool:
    """Whether a member that is given nothing is not called back: so it is under the new protocol."""
    return settings.kafka.get("group.protocol", "classic") == "consumer"


def consumer_config(settings: Settings, group: str, assignment: Assignment) -> dict[str, Any]:
    """The configuration of a worker's consumer; raises `SettingsError` on an assignor that it cannot work with.

    `range` gives a member the same partition numbers of every topic, which a join needs.
    """
    config: dict[str, Any] = {**FETCH}
    if settings.kafka.get("group.protocol", "classic") == "classic":
        strategy = "range" if assignment == "range" else "cooperative-sticky"
        config |= {**_CLASSIC_GROUP, "partition.assignment.strategy": strategy}
        fixed = "partition.assignment.strategy"
    else:
        config |= {"group.remote.assignor": "range"} if assignment == "range" else {}
        fixed = "group.remote.assignor"
    chosen = settings.kafka.get(fixed)
    if chosen is not None and chosen != config.get(fixed, chosen):
        raise SettingsError(
            f"KAFKA_{fixed.upper().replace('.', '_')}={chosen} cannot be used by {group}: it needs {config[fixed]}"
        )
    return {
        **config,
        **_base(settings, group),
        "group.id": group,
        "isolation.level": "read_committed",
        "enable.auto.commit": "false",
        "enable.auto.offset.store": "false",
        "auto.offset.reset": "error",
    }


def worker_consumer(
    settings: Settings, group: str, assignment: Assignment, on_error: Callable[[Any], None]
) -> Consumer:
    """The consumer of a worker; `on_error` hears of lost brokers and the like, and must not raise."""
    config = consumer_config(settings, group, assignment)
    consumer: Consumer = make_client(confluent_kafka.Consumer, {**config, "error_cb": on_error})
    return consumer


def reader(
    settings: Settings, name: str, *, committed: bool = True, fetch: Mapping[str, str] = MappingProxyType({})
) -> Any:
    """A consumer without a group, for reading given partitions: a `confluent_kafka.Consumer`.

    It reads what is committed, or also what is not. `fetch` are properties that the settings may still change.
    """
    level = "read_committed" if committed else "read_uncommitted"
    config = {**FETCH, **fetch, **_base(settings, name), "group.id": name, "isolation.level": level}
    config |= {"enable.auto.commit": "false", "auto.offset.reset": "earliest", "enable.partition.eof": "false"}
    for group_only in ("group.protocol", "group.remote.assignor", "max.poll.interval.ms", "session.timeout.ms"):
        config.pop(group_only, None)
    return make_client(confluent_kafka.Consumer, config)


def stretch_reader(settings: Settings, name: str) -> Any:
    """A `reader` for stretches that have an end: the broker does not keep it waiting there for more to come.

    Its next question would wait too: a broker answers those of one connection in order.
    """
    return reader(settings, name, fetch={"fetch.wait.max.ms": "10"})


def transactional_id(group: str) -> str:
    """Distinct for each worker, and the same for a container that is restarted."""
    return f"{group}-{socket.gethostname()}-{os.getpid()}"


def transactional_producer(settings: Settings, group: str, name: str | None = None) -> Producer:
    """A producer whose records are seen when its transaction is committed.

    Of all that have the same `name`, only the latest goes on; without one it has the worker's own.
    """
    config = {**PRODUCER, **TRANSACTION, **_base(settings, group), "transactional.id": name or transactional_id(group)}
    producer: Producer = make_client(confluent_kafka.Producer, config)
    return producer


def plain_producer(settings: Settings, name: str, *, failures_only: bool = True) -> Producer:
    """An idempotent producer whose records are seen at once; only what is not delivered is reported, or everything."""
    config = {**PRODUCER, "delivery.report.only.error": failures_only, **_base(settings, name)}
    producer: Producer = make_client(confluent_kafka.Producer, config)
    return producer


def admin(settings: Settings, on_error: Callable[[Any], None] | None = None) -> AdminClient:
    """A client for topics and offsets. Asking for a topic does not make it, whatever the broker allows.

    `on_error` hears, when the client is polled, why brokers cannot be reached.
    """
    config: dict[str, Any] = {"allow.auto.create.topics": "false", **_base(settings, "admin")}
    if on_error is not None:
        config["error_cb"] = on_error
    client: AdminClient = make_client(AdminClient, config)
    return client


class BrokerLogEnds:
    """The ends of partitions, asked of the broker (see `LogEnds`).

    After a failure a new client is made: an old one goes on asking with a leader epoch from before the failure
    (FENCED_LEADER_EPOCH, seen for over 20 s after a broker's restart).
    """

    def __init__(self, make_client: Callable[[], AdminClient]) -> None:
        self._make_client = make_client
        self._client = make_client()

    def ask(self, partitions: Sequence[Partition]) -> Callable[[], Mapping[Partition, int] | None]:
        """Ask for the high watermarks, so that what an open transaction has written is counted too."""
        end = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        client = self._client
        asked: dict[TopicPartition, Future[ListOffsetsResultInfo]] = client.list_offsets(
            {TopicPartition(*partition): end for partition in partitions},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
        )

        def answer() -> Mapping[Partition, int] | None:
            if not all(future.done() for future in asked.values()):
                return None
            try:
                return {Partition(at.topic, at.partition): future.result().offset for at, future in asked.items()}
            except KafkaException as error:
                # This also keeps the client: one that nobody holds is destroyed, and its futures are never done.
                if self._client is client:
                    self._client = self._make_client()
                raise RetriableError(f"the broker did not tell where the partitions end: {error}") from error

        return answer


def ends_of(settings: Settings, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
    """The high watermarks of partitions, as of now.

    Asked for again for a while, since the partitions of a new topic have no leader at first; raises `UnavailableError`
    after `BROKER_TIMEOUT` seconds.
    """
    asker = BrokerLogEnds(lambda: admin(settings))
    answer = asker.ask(partitions)
    deadline = time.monotonic() + settings.broker_timeout
    while time.monotonic() < deadline:
        try:
            if (ends := answer()) is not None:
                return ends
        except RetriableError:
            answer = asker.ask(partitions)
        time.sleep(0.01)
    raise UnavailableError(
        f"the broker did not tell within {settings.broker_timeout:g} s (BROKER_TIMEOUT) where these topics end: "
        f"{', '.join(sorted({partition.topic for partition in partitions}))}"
    )
