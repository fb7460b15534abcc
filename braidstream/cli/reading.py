"""Reads a topic from where it begins, or from given offsets, to its end or for ever: no group, nothing is committed."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from copy import copy
from datetime import datetime
from typing import Any, Self

from confluent_kafka import KafkaException, Message, TopicPartition

from braidstream.errors import FatalError, SettingsError, UnavailableError
from braidstream.pipelines import Pipeline
from braidstream.settings import Settings
from braidstream.streaming import clients, topics
from braidstream.streaming.ports import Partition, is_lasting

_AT_ONCE = 500
_GROWTH = 4
_WAIT = 0.2
_PATIENCE = 10.0
"""Seconds after which a person is told that no broker answers, unless BROKER_TIMEOUT is set."""


def metadata_of(settings: Settings) -> Any:
    """The cluster's metadata; raises `UnavailableError` when no broker answers a person's patience long."""
    patience = {} if "broker_timeout" in settings.model_fields_set else {"broker_timeout": _PATIENCE}
    return topics.await_broker(clients.admin(settings), settings.model_copy(update=patience))


def partitions_of(pipeline: Pipeline[Any], settings: Settings) -> list[Partition]:
    """Those of the pipeline's topics that are there, the most telling topics first.

    Raises `SettingsError` when none is there, and as `metadata_of` does.
    """
    first = (pipeline.subjects.name, pipeline.predictions.name, pipeline.decisions.name, pipeline.dead_letters)
    names = [settings.named(name) for name in dict.fromkeys((*first, *(topic.name for topic in pipeline.topics)))]
    there = metadata_of(settings).topics
    if there.keys().isdisjoint(names):
        raise SettingsError(
            f"none of the topics {', '.join(names)} is at {settings.bootstrap_servers}: is TOPIC_PREFIX right? "
            "`braidstream topics create` makes them"
        )
    return [Partition(name, number) for name in names if name in there for number in there[name].partitions]


class TopicReader:
    """Committed records of one topic, by its full name; `consumer` is a `clients.reader`.

    Raises `SettingsError` when there is no such topic. Offsets are by partition number.
    """

    def __init__(self, consumer: Any, settings: Settings, name: str) -> None:
        self._consumer = consumer
        self._settings = settings
        self.name = name
        metadata = metadata_of(settings)
        self.is_embedded = topics.is_embedded(metadata)
        self.partitions = {topic: len(found.partitions) for topic, found in metadata.topics.items()}
        """How many each topic of the broker has."""
        self._require(name)

    def of(self, name: str) -> Self:
        """The same for another topic, read by the same consumer: one of them at a time."""
        self._require(name)
        other = copy(self)
        other.name = name
        return other

    @property
    def numbers(self) -> Collection[int]:
        """The numbers of its partitions."""
        return range(self.partitions[self.name])

    def starts(self, numbers: Collection[int]) -> dict[int, int]:
        """The first offsets that are still there; raises `UnavailableError`."""
        return {number: self._start(number) for number in numbers}

    def ends(self, numbers: Collection[int]) -> dict[int, int]:
        """The high watermarks as of now; raises `UnavailableError`."""
        ends = clients.ends_of(self._settings, [Partition(self.name, number) for number in numbers])
        return {partition.number: end for partition, end in ends.items()}

    def between(
        self, numbers: Collection[int], since: datetime | None, until: datetime | None
    ) -> tuple[dict[int, int], dict[int, int]]:
        """Where the records written from a time on, and before one, begin and end; None is as far as there are any.

        The embedded broker knows nothing of times: there it is all. Raises `UnavailableError`.
        """
        known = not self.is_embedded
        starts = self._first_from(numbers, since) if since is not None and known else {}
        ends = self._first_from(numbers, until) if until is not None and known else {}
        if len(ends) < len(numbers) or len(starts) < len(numbers):
            last = self.ends(numbers)
            ends = {**last, **ends}
            starts = {**(last if since is not None and known else self.starts(numbers)), **starts}
        return starts, ends

    def stretches(self, numbers: Collection[int], records: int) -> Iterator[tuple[dict[int, int], dict[int, int]]]:
        """Starts and ends, from the end back to the beginning: this many records of each partition, then more and more.

        Raises `UnavailableError`.
        """
        firsts, tops = self.between(numbers, None, None)
        while any(tops[number] > first for number, first in firsts.items()):
            lows = {number: max(first, tops[number] - records) for number, first in firsts.items()}
            yield lows, tops
            tops, records = lows, records * _GROWTH

    def read(self, starts: Mapping[int, int], ends: Mapping[int, int] | None) -> Iterator[Message]:
        """See `read`."""
        return read(self._consumer, self.name, starts, ends, timeout=self._settings.broker_timeout)

    def _first_from(self, numbers: Collection[int], moment: datetime) -> dict[int, int]:
        """The offsets of the first records written at a moment or later, of the partitions that have one."""
        # What is before 1970 means something else to a broker.
        milliseconds = max(0, int(moment.timestamp() * 1000))
        wanted = [TopicPartition(self.name, number, milliseconds) for number in numbers]
        try:
            found = self._consumer.offsets_for_times(wanted, timeout=self._settings.broker_timeout)
            if errors := [at.error for at in found if at.error is not None]:
                raise KafkaException(errors[0])
        except KafkaException as error:
            raise UnavailableError(
                f"the broker did not tell what was written to {self.name} when: {error.args[0].str()}"
            ) from error
        return {at.partition: at.offset for at in found if at.offset >= 0}

    def _require(self, name: str) -> None:
        if name not in self.partitions:
            there = ", ".join(sorted(other for other in self.partitions if not other.startswith("__"))) or "none"
            raise SettingsError(
                f"there is no topic {name} at {self._settings.bootstrap_servers}; the topics are: {there}"
            )

    def _start(self, number: int) -> int:
        try:
            low, _high = self._consumer.get_watermark_offsets(
                TopicPartition(self.name, number), timeout=self._settings.broker_timeout, cached=False
            )
        except KafkaException as error:
            raise UnavailableError(
                f"the broker did not tell where {self.name} begins: {error.args[0].str()}"
            ) from error
        return int(low)


def read(
    consumer: Any,
    topic: str,
    starts: Mapping[int, int],
    ends: Mapping[int, int] | None,
    *,
    timeout: float,
) -> Iterator[Message]:
    """The records of the partitions from their starts on; up to their ends, or for ever without them.

    The ends are high watermarks, which a reader of committed records reaches when the transactions before them are
    over. Raises `UnavailableError` when nothing moves for `timeout` seconds before an end.
    """
    positions = {number: start for number, start in starts.items() if ends is None or start < ends[number]}
    consumer.assign([TopicPartition(topic, number, start) for number, start in positions.items()])
    deadline = time.monotonic() + timeout
    while ends is None or positions:
        for message in _take(consumer):
            if (error := message.error()) is not None:
                if is_lasting(error):
                    raise FatalError(f"{topic} cannot be read: {error.str()}")
            elif ends is None or message.offset() < ends[message.partition()]:
                yield message
        if ends is None:
            continue
        moved = _positions(consumer, topic, positions)
        if moved != positions:
            positions, deadline = moved, time.monotonic() + timeout
        elif time.monotonic() >= deadline:
            raise UnavailableError(
                f"partitions {list(positions)} of {topic} were not read to their end: nothing came for {timeout:g} s "
                "(BROKER_TIMEOUT). Is the broker up, or does an open transaction hold readers back?"
            )
        if done := [number for number, at in positions.items() if at >= ends[number]]:
            # What comes after their ends would come before what is left of the others.
            consumer.incremental_unassign([TopicPartition(topic, number) for number in done])
            positions = {number: at for number, at in positions.items() if number not in done}


def _take(consumer: Any) -> list[Any]:
    """What is there: a record is not kept waiting for others."""
    first: list[Any] = consumer.consume(1, _WAIT)
    return [*first, *consumer.consume(_AT_ONCE - 1, 0)] if first else first


def _positions(consumer: Any, topic: str, before: Mapping[int, int]) -> dict[int, int]:
    found = consumer.position([TopicPartition(topic, number) for number in before])
    return {at.partition: max(at.offset, before[at.partition]) for at in found}
