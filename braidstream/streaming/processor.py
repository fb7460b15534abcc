"""What a worker does with a batch: the contract, and the processor behind every stateless handler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol

import structlog
from confluent_kafka import Message
from pydantic import BaseModel

from braidstream.avro import Codec, E, SchemaSource
from braidstream.errors import FatalError, PoisonRecord, RetriableError
from braidstream.pipeline import Topic
from braidstream.streaming.dead_letters import DeadLetterLimit, dead_letter, raw_headers
from braidstream.streaming.ports import Headers, Partition, partition_of
from braidstream.streaming.publisher import OutRecord

PARTITIONED_BY_KEY = -1
"""librdkafka's RD_KAFKA_PARTITION_UA: its murmur2_random partitioner chooses."""


@dataclass
class Work:
    """What a batch gave: the records to publish, and the partitions whose offsets go with them."""

    records: list[OutRecord] = field(default_factory=list)
    partitions: set[Partition] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)


class Processor(Protocol):
    """What the worker loop asks of a consumer's work.

    `topics` are read; `joins` says that a partition number is to be owned in all of them or in none. State that
    `process` changes is final at `commit` and undone at `rollback`.
    """

    topics: tuple[str, ...]
    joins: bool

    def rebalanced(self, revoked: Collection[Partition], assigned: Collection[Partition]) -> None:
        """Partitions went and came, in this order."""
        ...

    def held(self) -> Collection[Partition]:
        """Partitions that are not to be read for now."""
        ...

    def patience(self) -> float:
        """Seconds for which nothing has to be done when no record comes."""
        ...

    def process(self, records: Sequence[Message], positions: Callable[[], Mapping[Partition, int]]) -> Work:
        """The work for these records, in order, and for what the clock asks. `positions` says how far was read."""
        ...

    def commit(self) -> None:
        """What the last `process` gave is in the log."""
        ...

    def rollback(self) -> None:
        """Nothing of what the last `process` gave is in the log."""
        ...

    def waiting_for(self) -> str | None:
        """Why the worker is not ready; None when it is."""
        ...

    def gauges(self) -> Mapping[str, int]:
        """Figures for the log."""
        ...


class Intake(Generic[E]):
    """Reads the records of one topic, and refuses those whose key is not their event's."""

    def __init__(self, topic: Topic[E], schemas: SchemaSource, topic_name: str) -> None:
        self.name = topic_name
        self._topic = topic
        self._codec: Codec[E] = Codec(topic.event_type, schemas, topic_name)

    def decode(self, value: bytes) -> E:
        """The event of a value alone."""
        return self._codec.decode(value)

    def read(self, record: Message) -> E:
        """The event of a record; raises `PoisonRecord`."""
        event = self._codec.decode(record.value())
        key = self._topic.key_of(event)
        if record.key() != key.encode():
            raise PoisonRecord(
                "KEY_CONVERTER", f"the key {record.key()!r:.80} is not the {self._topic.key} {key!r:.80}"
            )
        return event


class DeadLetters:
    """Makes the dead letters of one group, counts and logs them, and stops the worker when they are too many."""

    def __init__(self, topic: str, group: str, limit: DeadLetterLimit) -> None:
        self._topic = topic
        self._group = group
        self._limit = limit
        self._log = structlog.get_logger()

    def add(self, work: Work, records: Sequence[Message], errors: Mapping[int, Exception]) -> None:
        """Put the records at these indexes into the work as dead letters; raises `FatalError` at the limit."""
        self._limit.observe([index in errors for index in range(len(records))])
        if not errors:
            return
        first = min(errors)
        self._log.warning(
            "dead letters",
            count=len(errors),
            first=f"{records[first].topic()} [{records[first].partition()}] offset {records[first].offset()}",
            reason=str(errors[first]),
            topic=self._topic,
        )
        work.counts["dead_letters"] += len(errors)
        work.records += [dead_letter(self._topic, records[i], errors[i], self._group) for i in sorted(errors)]

    def commit(self) -> None:
        """What was added is in the log."""
        self._limit.commit()

    def rollback(self) -> None:
        """What was added since the last commit comes again."""
        self._limit.rollback()


class Output(NamedTuple):
    """An event for a topic; its key is the event's, by the topic's definition."""

    topic: Topic[Any]
    event: BaseModel


Handler = Callable[[Sequence[E]], Sequence[Sequence[Output]]]
"""A pure function: for each event, in order, a list of outputs."""


def isolate(handle: Handler[E], events: Sequence[E]) -> list[Sequence[Output] | Exception]:
    """What the handler gives for each event, or the exception of the events that make it raise, found by halving."""
    if not events:
        return []
    try:
        outputs = handle(events)
    except (RetriableError, FatalError):
        raise
    except Exception as error:
        if len(events) == 1:
            return [error]
        half = len(events) // 2
        return isolate(handle, events[:half]) + isolate(handle, events[half:])
    if len(outputs) != len(events):
        raise FatalError(f"the handler returned {len(outputs)} lists of outputs for {len(events)} events")
    return list(outputs)


class HandlerProcessor(Generic[E]):
    """Runs a handler over the events of one topic."""

    joins = False

    def __init__(
        self,
        intake: Intake[E],
        handle: Handler[E],
        outputs: Mapping[str, tuple[str, Codec[Any]]],
        dead_letters: DeadLetters,
    ) -> None:
        """`outputs` gives, by the name in the pipeline, the topic's full name and its codec."""
        self.topics: tuple[str, ...] = (intake.name,)
        self._intake = intake
        self._handle = handle
        self._outputs = outputs
        self._dead_letters = dead_letters

    def rebalanced(self, revoked: Collection[Partition], assigned: Collection[Partition]) -> None:
        """Nothing is kept for a partition."""

    def held(self) -> Collection[Partition]:
        """Every partition is read."""
        return ()

    def patience(self) -> float:
        """The clock asks for nothing."""
        return float("inf")

    def process(self, records: Sequence[Message], positions: Callable[[], Mapping[Partition, int]]) -> Work:
        """Decode, handle, encode; what fails becomes a dead letter, the rest goes on in order."""
        work = Work(partitions={partition_of(record) for record in records})
        events, errors = self._read(records)
        results = isolate(self._handle, list(events.values()))
        for index, result in zip(events, results, strict=True):
            if isinstance(result, Exception):
                errors[index] = result
                continue
            try:
                work.records += [self._encode(records[index], output) for output in result]
            except Exception as error:
                errors[index] = error
        work.counts["in"] = len(records)
        work.counts["out"] = len(work.records)
        self._dead_letters.add(work, records, errors)
        return work

    def commit(self) -> None:
        """Only the count of dead letters is kept."""
        self._dead_letters.commit()

    def rollback(self) -> None:
        """Only the count of dead letters is kept."""
        self._dead_letters.rollback()

    def waiting_for(self) -> str | None:
        """A handler is ready as soon as it is made."""
        return None

    def gauges(self) -> Mapping[str, int]:
        """Nothing is kept."""
        return {}

    def _read(self, records: Sequence[Message]) -> tuple[dict[int, E], dict[int, Exception]]:
        events: dict[int, E] = {}
        errors: dict[int, Exception] = {}
        for index, record in enumerate(records):
            try:
                events[index] = self._intake.read(record)
            except PoisonRecord as error:
                errors[index] = error
        return events, errors

    def _encode(self, source: Message, output: Output) -> OutRecord:
        topic, codec = self._outputs[output.topic.name]
        key = output.topic.key_of(output.event).encode()
        partition = partition_of(source).number if key == source.key() else PARTITIONED_BY_KEY
        return OutRecord(topic, partition, key, codec.encode(output.event), _provenance(source))


def _provenance(source: Message) -> Headers:
    """Headers that say which record an output was made from, and its trace."""
    headers: Headers = [
        ("source.topic", str(source.topic()).encode()),
        ("source.partition", str(source.partition()).encode()),
        ("source.offset", str(source.offset()).encode()),
    ]
    return headers + [(name, value) for name, value in raw_headers(source) if name == "traceparent"]
