"""Reads what is written to a pipeline's topics, of as many partitions as can be read without load."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Message, TopicPartition
from pydantic import ValidationError

from braidstream.cli.groups import Log
from braidstream.cli.records import Decoder
from braidstream.dashboard.subjects import Subjects
from braidstream.errors import RetriableError
from braidstream.pipelines import Pipeline
from braidstream.settings import Settings
from braidstream.streaming import clients
from braidstream.streaming.ports import Partition, is_lasting, partition_of
from schemas.decision import Decision
from schemas.decision_state import DecisionState

MOST_A_SECOND = 20_000
"""Records that are read a second, of all topics together."""

_LATEST = 20
"""Decisions of each partition that are read at first: a topic at rest has others to show than new ones."""

_STATES = 20_000
"""Records of the changelog that are read at first, for what is open."""

_AT_ONCE = 500
_BLIND = 10.0
"""Seconds for which nothing is decoded after the registry did not answer."""

_SAID = 10.0
"""Seconds for which a problem is shown."""

_SMALL_FETCHES = {"queued.min.messages": "2000", "queued.max.messages.kbytes": "4096"}


def numbers_to_follow(now: int, there: int, rate: float) -> int:
    """How many partition numbers to follow of those that are there, when `now` are followed.

    `rate` are the records a second of one number, in all topics. 0 when even one has too many. It changes only when
    `now` are too many, or far more can be followed.
    """
    room = 0.8 * MOST_A_SECOND
    target = there if rate * there <= room else int(room / rate)
    if now * rate <= MOST_A_SECOND and (target <= now or now < target < min(there, 2 * now)):
        return now
    return target


class Following:
    """Follows partition numbers in every topic of a pipeline; joins no group and commits nothing.

    `subjects` is what came of it since the numbers changed. `counts` are by `read <topic>` the records that were read,
    and by `passed <topic>` the offsets that they had with what lies between them: markers of transactions, and what was
    aborted.
    """

    def __init__(self, settings: Settings, pipeline: Pipeline[Any], decode: Decoder) -> None:
        self.subjects = Subjects()
        self.numbers: Sequence[int] = ()
        self.counts: dict[str, int] = {}
        self._decode = decode
        self._consumer = clients.reader(settings, settings.named("top"), fetch=_SMALL_FETCHES)
        self._events = settings.named(pipeline.subjects.name)
        self._decisions = settings.named(pipeline.decisions.name)
        self._states = settings.named(pipeline.decision_state.name)
        self._positions: dict[Partition, int] = {}
        self._ends: dict[Partition, int] = {}
        self._since: dict[Partition, float] = {}
        self._begun = 0.0
        self._is_everything = False
        self._blind_until = 0.0
        self._said: tuple[float, str] | None = None

    @property
    def problem(self) -> str | None:
        """What could not be read lately, and why; None when there was nothing."""
        at, what = self._said or (0.0, None)
        return what if time.monotonic() - at < _SAID else None

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()

    def adjust(self, logs: Mapping[Partition, Log], there: int, rate: float) -> None:
        """Follow as many numbers as can be, as in `numbers_to_follow`; `logs` are of all partitions."""
        count = numbers_to_follow(len(self.numbers) if self._positions else there, there, rate)
        if count != len(self.numbers) or not count:
            self._follow(range(count), logs)

    def read(self, seconds: float) -> None:
        """Take what comes in this time, or its share of `MOST_A_SECOND` of it."""
        end = time.monotonic() + seconds
        left = int(seconds * MOST_A_SECOND)
        while left > 0 and (wait := end - time.monotonic()) > 0:
            messages = self._consumer.consume(min(left, _AT_ONCE), wait)
            left -= len(messages)
            for message in messages:
                self._take(message)
        time.sleep(max(0.0, end - time.monotonic()))
        self._move()

    def open_is_exact(self, now: float) -> bool:
        """Whether every subject that is open has been read of; `now` is in seconds since 1970."""
        since = now - self.subjects.deadline
        return self._is_everything and all(
            self._positions[partition] >= end and self._since.get(partition, self._begun) <= since
            for partition, end in self._ends.items()
            if partition.topic == self._states
        )

    def _follow(self, numbers: Sequence[int], logs: Mapping[Partition, Log]) -> None:
        """Begin anew; without numbers, go on with the latest decisions of one partition."""
        read_to = {} if numbers else self._positions
        if numbers or self.numbers:
            self.subjects = Subjects()
        self.numbers = numbers
        wanted = {p: log for p, log in logs.items() if p.number in numbers or p == Partition(self._decisions, 0)}
        self._positions = {p: max(self._first(p, log), read_to.get(p, 0)) for p, log in wanted.items()}
        self._ends = {partition: log.end for partition, log in wanted.items()}
        self._since = {p: 0.0 for p, log in wanted.items() if self._positions[p] == log.start}
        self._begun = time.time()
        self._is_everything = len(wanted) == len(logs)
        self._consumer.assign([TopicPartition(*partition, offset) for partition, offset in self._positions.items()])

    def _first(self, partition: Partition, log: Log) -> int:
        back = {self._decisions: _LATEST, self._states: _STATES // max(1, len(self.numbers))}
        return max(log.start, log.end - back.get(partition.topic, 0))

    def _move(self) -> None:
        """Take note of how far was read."""
        for at in self._consumer.position([TopicPartition(*partition) for partition in self._positions]):
            partition = Partition(at.topic, at.partition)
            if (passed := at.offset - self._positions[partition]) > 0:
                self._positions[partition] = at.offset
                self._count(f"passed {at.topic}", passed)

    def _say(self, problem: str) -> None:
        self._said = time.monotonic(), problem

    def _count(self, name: str, more: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + more

    def _take(self, message: Message) -> None:
        if (error := message.error()) is not None:
            if is_lasting(error):
                self._say(f"{message.topic()} cannot be read: {error.str()}")
            return
        partition = partition_of(message)
        self._count(f"read {partition.topic}", 1)
        _, milliseconds = message.timestamp()
        if partition.topic == self._events:
            self.subjects.event(_text(message.key()), milliseconds / 1000)
        elif partition.topic in {self._decisions, self._states}:
            self._since.setdefault(partition, milliseconds / 1000)
            if time.monotonic() < self._blind_until:
                return
            try:
                self._take_note(message, partition, milliseconds / 1000)
            except RetriableError as error:
                self._say(str(error))
                self._blind_until = time.monotonic() + _BLIND

    def _take_note(self, message: Message, partition: Partition, at: float) -> None:
        """Of a decision or a state, whatever later versions add to it; raises `RetriableError` as decoding does."""
        value = self._decode(message).value
        try:
            if partition.topic == self._decisions:
                self.subjects.decision(Decision.model_validate(value, extra="ignore"), at)
            else:
                state = None if value is None else DecisionState.model_validate(value, extra="ignore")
                self.subjects.state(_text(message.key()), state)
        except ValidationError:
            self._say(f"record {partition.number}/{message.offset()} of {partition.topic} cannot be read")


def _text(key: str | bytes | None) -> str:
    return key.decode(errors="replace") if isinstance(key, bytes) else str(key)
