"""What a worker does with a batch: the contract, and the processor behind every stateless handler."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Generic, Protocol

import structlog
from confluent_kafka import Message

from braidstream.avro import E
from braidstream.errors import message_of, release
from braidstream.streaming.dead_letters import (
    NOTHING,
    Addressed,
    DeadLetterLimit,
    Reason,
    addressed,
    dead_letter,
    reason_of,
)
from braidstream.streaming.handler import Handler, Result, handle_apart
from braidstream.streaming.intake import Intake
from braidstream.streaming.ports import Headers, Partition
from braidstream.streaming.publisher import OutRecord
from braidstream.streaming.traceparent import HEADER

PARTITIONED_BY_KEY = -1
"""librdkafka's RD_KAFKA_PARTITION_UA: its murmur2_random partitioner chooses."""

_NO_HEADERS: Headers = []


@dataclass
class Work:
    """What a batch gave: the records to publish, the states of a changelog that say so, and the partitions.

    The offsets of these partitions are committed with them. `counts` are for the log. The rest is for whoever measures:
    records taken and written by topic, dead letters by reason, seconds in the model or the join, seconds of publishing,
    and of some records their topics and timestamps, in milliseconds since 1970, UTC; and what came, with its traces.
    """

    records: list[OutRecord] = field(default_factory=list)
    states: list[OutRecord] = field(default_factory=list)
    partitions: set[Partition] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    consumed: Mapping[str, int] = field(default_factory=dict)
    produced: Mapping[str, int] = field(default_factory=dict)
    dead_letters: Counter[Reason] = field(default_factory=Counter)
    handler_seconds: float = 0.0
    transaction_seconds: float = 0.0
    timestamps: Sequence[tuple[str, int]] = ()
    taken: Addressed = NOTHING


Positions = Callable[[], Mapping[Partition, int]]
"""Tells how far each owned partition was read."""

IsRepeat = Callable[[Message, str], bool]
"""Whether an event, given its record and its subject, is of one that was handled before."""

Rest = Callable[[Positions], Work]
"""The rest of a batch's work, for which what came before the batch has to be in the log."""


class Processor(Protocol):
    """What the worker loop asks of a consumer's work.

    `topics` are read; `joins` says that a partition number is to be owned in all of them or in none, `stateful` that
    something is kept for each partition, so that a new one is held until it is there. State that the rest of the work
    changes is final at `commit` and undone at `rollback`.
    """

    topics: tuple[str, ...]
    joins: bool
    stateful: bool

    def rebalanced(self, revoked: Collection[Partition], assigned: Collection[Partition]) -> None:
        """Partitions went and came, in this order."""
        ...

    def held(self) -> Collection[Partition]:
        """Partitions that are not to be read for now."""
        ...

    def patience(self) -> float:
        """Seconds for which nothing has to be done when no record comes."""
        ...

    def prepare(self, records: Sequence[Message]) -> Rest:
        """Do what needs no state, while what came before is still being published; returns what is left to do.

        That is the work for these records, in order, and for what the clock asks.
        """
        ...

    def commit(self) -> None:
        """What the last work gave is in the log."""
        ...

    def rollback(self) -> None:
        """Nothing of what the last work gave is in the log."""
        ...

    def waiting_for(self) -> str | None:
        """Why the worker is not ready; None when it is."""
        ...

    def gauges(self) -> Mapping[str, int]:
        """Figures for the log."""
        ...


class DeadLetters:
    """Makes the dead letters of one group, counts and logs them, and stops the worker when they are too many.

    They are counted by kind, such as a topic: what fails of one kind is no less bad when another kind goes well.
    """

    def __init__(self, topic: str, group: str, make_limit: Callable[[str], DeadLetterLimit]) -> None:
        self._topic = topic
        self._group = group
        self._make_limit = make_limit
        self._limits: dict[str, DeadLetterLimit] = {}
        self._log = structlog.get_logger()

    def addressed(self, records: Sequence[Message]) -> Addressed:
        """Sort out what was sent back for other groups."""
        return addressed(records, self._group)

    def observe(self, kind: str, errors: Sequence[Exception | None]) -> None:
        """Count records of a kind in order, and those that failed; raises `FatalError` when they are too many."""
        if (limit := self._limits.get(kind)) is None:
            limit = self._limits[kind] = self._make_limit(kind)
        limit.observe(errors)

    def add(
        self,
        work: Work,
        records: Sequence[Message],
        errors: Mapping[int, Exception],
        kinds: Mapping[str, Sequence[int]],
    ) -> None:
        """Put the records at these indexes into the work as dead letters; raises `FatalError` when they are too many.

        `kinds` has the indexes of the records that are counted, by their kind.
        """
        for kind, indexes in kinds.items():
            self.observe(kind, list(map(errors.get, indexes)))
        if not errors:
            return
        first = min(errors)
        self._log.warning(
            "dead letters",
            count=len(errors),
            first=f"{records[first].topic()} [{records[first].partition()}] offset {records[first].offset()}",
            reason=message_of(errors[first]),
            topic=self._topic,
        )
        work.counts["dead_letters"] += len(errors)
        work.dead_letters.update(map(reason_of, errors.values()))
        work.records += [dead_letter(self._topic, records[i], errors[i], self._group) for i in sorted(errors)]
        for error in errors.values():
            release(error)

    def commit(self) -> None:
        """What was added is in the log."""
        for limit in self._limits.values():
            limit.commit()

    def rollback(self) -> None:
        """What was added since the last commit comes again."""
        for limit in self._limits.values():
            limit.rollback()


def counted(indexes: Sequence[int], sent_back: Collection[int]) -> Sequence[int]:
    """The indexes of the records that count for the limits: what was sent back has been a dead letter already."""
    return sorted(set(indexes).difference(sent_back)) if sent_back else indexes


@dataclass
class HandledBatch:
    """A batch, decoded and handled.

    `taken` are all of its records, `records` those for this group, and `indexes` and `keys` those of them that were
    handled, with their `results`; `errors` say why a record is a dead letter, as far as that is known. `repeats` counts
    what was left out.
    """

    taken: Sequence[Message]
    addressed: Addressed
    indexes: Sequence[int]
    keys: Sequence[str]
    results: list[Result]
    errors: dict[int, Exception]
    repeats: int
    seconds: float

    @property
    def records(self) -> Sequence[Message]:
        """The records that are for this group."""
        return self.addressed.records


class HandlerProcessor(Generic[E]):
    """Runs a handler, which does not raise for what is an event's fault (`Isolation`), over the events of one topic."""

    joins = False
    stateful = False

    def __init__(
        self,
        intake: Intake[E],
        handle: Handler[E],
        dead_letters: DeadLetters,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.topics: tuple[str, ...] = (intake.name,)
        self._intake = intake
        self._handle = handle
        self._dead_letters = dead_letters
        self._clock = clock

    def rebalanced(self, revoked: Collection[Partition], assigned: Collection[Partition]) -> None:
        """Nothing is kept for a partition."""

    def held(self) -> Collection[Partition]:
        """Every partition is read."""
        return ()

    def patience(self) -> float:
        """The clock asks for nothing."""
        return float("inf")

    def prepare(self, records: Sequence[Message]) -> Rest:
        """Decode and handle; what fails becomes a dead letter, the rest goes on in order."""
        batch = self.handle(records)
        work = self.work(batch)

        def rest(_: Positions) -> Work:
            self.finish(work, batch)
            return work

        return rest

    def handle(self, records: Sequence[Message], is_repeat: IsRepeat | None = None) -> HandledBatch:
        """Decode these records, and handle those that are no repeats."""
        batch = self._dead_letters.addressed(records)
        events, indexes, errors = self._intake.read_all(batch.records)
        read = len(indexes)
        if is_repeat is not None:
            new = [row for row, at in enumerate(indexes) if not is_repeat(batch.records[at], events.keys[row])]
            if len(new) < read:
                events, indexes = events.at(new), [indexes[row] for row in new]
        sent_back = batch.sent_back
        apart = {row for row, index in enumerate(indexes) if index in sent_back} if sent_back else ()
        began = self._clock()
        results = handle_apart(self._handle, events, apart) if apart else self._handle(events)
        seconds = self._clock() - began
        return HandledBatch(records, batch, indexes, events.keys, list(results), errors, read - len(indexes), seconds)

    def partitions(self, records: Sequence[Message]) -> set[Partition]:
        """Those that the records came from."""
        return {Partition(self._intake.name, number) for number in _partitions(records)}

    def work(self, handled: HandledBatch) -> Work:
        """What the handler gave for a batch, and its offsets; notes what failed."""
        topic, records, skipped = self._intake.name, handled.records, handled.addressed.skipped
        sources = [records[index] for index in handled.indexes]
        outputs = list(_outputs(topic, sources, handled.results, handled.addressed.traces(handled.indexes)))
        work = Work(outputs, partitions=self.partitions(handled.taken), taken=handled.addressed)
        work.counts["in"] = len(handled.taken)
        work.counts["out"] = len(outputs)
        if skipped:
            work.counts["skipped"] = len(skipped)
        work.consumed = {topic: len(handled.taken)}
        work.handler_seconds = handled.seconds
        results = zip(handled.indexes, handled.results, strict=True)
        handled.errors |= {index: result for index, result in results if isinstance(result, Exception)}
        return work

    def finish(self, work: Work, handled: HandledBatch) -> None:
        """Add the dead letters; raises `FatalError` when they are too many."""
        mine = counted(range(len(handled.records)), handled.addressed.sent_back)
        self._dead_letters.add(work, handled.records, handled.errors, {self._intake.name: mine})

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


def _partitions(records: Sequence[Message]) -> set[int]:
    return {record.partition() or 0 for record in records}


def _outputs(
    topic: str, sources: Sequence[Message], results: Sequence[Result], traceparents: Sequence[bytes | None]
) -> Iterator[OutRecord]:
    """What the records of this topic gave, each on the partition of its source unless it has a key of its own.

    Headers say which record an output was made from, and its trace.
    """
    topic_header = ("source.topic", topic.encode())
    partition_headers = {number: ("source.partition", b"%d" % number) for number in _partitions(sources)}
    for source, outputs, traceparent in zip(sources, results, traceparents, strict=True):
        if isinstance(outputs, Exception):
            continue
        source_key, number = source.key(), source.partition() or 0
        headers: Headers = [topic_header, partition_headers[number], ("source.offset", b"%d" % (source.offset() or 0))]
        if traceparent is not None:
            headers.append((HEADER, traceparent))
        for to, key, value in outputs:
            yield to, number if key == source_key else PARTITIONED_BY_KEY, key, value, headers


def of_partition(
    topic: str,
    number: int,
    subject_ids: Iterable[str],
    values: Iterable[bytes | None],
    headers: Iterable[Headers] | None = None,
) -> Iterator[OutRecord]:
    """Records with these keys and values, and no headers if none are given, for one partition."""
    return zip(repeat(topic), repeat(number), map(str.encode, subject_ids), values, headers or repeat(_NO_HEADERS))
