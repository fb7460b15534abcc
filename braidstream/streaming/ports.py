"""What the worker needs of Kafka: the part of confluent-kafka's clients that it calls.

The real clients have these methods, and so has the fake broker in `braidstream.testing`; one suite of contract tests
runs on both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from confluent_kafka import KafkaError, Message, TopicPartition


class Partition(NamedTuple):
    """A topic's partition."""

    topic: str
    number: int


_LASTING = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.INVALID_SESSION_TIMEOUT,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._AUTHENTICATION,
        KafkaError._NOT_IMPLEMENTED,
    }
)


def partition_of(message: Message) -> Partition:
    """Where a record is from."""
    return Partition(str(message.topic()), int(message.partition() or 0))


def is_lasting(error: KafkaError) -> bool:
    """Whether a consumer's error stays until somebody mends something; the others pass when a broker answers again.

    `KafkaError.retriable` cannot tell: it is only set on errors of transactions.
    """
    return error.fatal() or error.code() in _LASTING


Rebalance = Callable[[Any, list[TopicPartition]], None]


class Consumer(Protocol):
    """The part of `confluent_kafka.Consumer` in use."""

    def subscribe(
        self, topics: list[str], *, on_assign: Rebalance, on_revoke: Rebalance, on_lost: Rebalance
    ) -> None: ...
    def consume(self, num_messages: int, timeout: float) -> list[Message]: ...
    def assign(self, partitions: list[TopicPartition]) -> None: ...
    def unassign(self) -> None: ...
    def incremental_assign(self, partitions: list[TopicPartition]) -> None: ...
    def incremental_unassign(self, partitions: list[TopicPartition]) -> None: ...
    def pause(self, partitions: list[TopicPartition]) -> None: ...
    def resume(self, partitions: list[TopicPartition]) -> None: ...
    def seek(self, partition: TopicPartition) -> None: ...
    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]: ...
    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]: ...
    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> Any: ...
    def get_watermark_offsets(self, partition: TopicPartition, timeout: float, cached: bool) -> tuple[int, int]: ...
    def consumer_group_metadata(self) -> Any: ...
    def memberid(self) -> str | None: ...
    def close(self) -> None: ...


Headers = list[tuple[str, bytes | None]]


class Producer(Protocol):
    """The part of `confluent_kafka.Producer` in use."""

    def init_transactions(self, timeout: float) -> None: ...
    def begin_transaction(self) -> None: ...
    def send_offsets_to_transaction(
        self, positions: list[TopicPartition], group_metadata: Any, timeout: float = ...
    ) -> None: ...
    def commit_transaction(self) -> None: ...
    def abort_transaction(self, timeout: float = ...) -> None: ...
    def produce(  # noqa: PLR0917 - as the client has it
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        callback: Callable[[Any, Message], None] | None = ...,
        on_delivery: Callable[[Any, Message], None] | None = ...,
        timestamp: int = ...,
        headers: Headers | None = ...,
    ) -> None:
        """`callback`, or by its other name `on_delivery`, hears of failures only (`delivery.report.only.error`)."""
        ...

    def poll(self, timeout: float) -> int: ...
    def flush(self, timeout: float) -> int: ...
    def purge(self) -> None: ...


class LogEnds(Protocol):
    """Asks for the ends of partitions without waiting for the answer."""

    def ask(self, partitions: Sequence[Partition]) -> Callable[[], Mapping[Partition, int] | None]:
        """Ask for the high watermarks (read_uncommitted); call what is returned for the answer, None until it is there.

        Raises `RetriableError` (from the call that is returned) when the broker did not say.
        """
        ...
