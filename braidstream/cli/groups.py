"""Consumer groups as the broker tells of them: members, committed offsets, and how far those are behind.

`Groups` and `FirstRecords` ask the broker, `lags` and `dated` make rows of what it said, and `look` does all of it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import ListOffsetsResultInfo, OffsetSpec

from braidstream.errors import FatalError, SettingsError, UnavailableError
from braidstream.settings import Settings
from braidstream.streaming import clients
from braidstream.streaming.gaps import Gap
from braidstream.streaming.ports import Partition, is_lasting, partition_of
from braidstream.streaming.replay import time_of

T = TypeVar("T")

_CALL_TIMEOUT = 10.0
_WAIT = 0.1
_YEAR_9999 = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""Timestamps may be later, as of who takes microseconds; a `datetime` cannot."""
_AT_ONCE = 1000
_SMALL_FETCHES = {"queued.min.messages": "1000", "max.partition.fetch.bytes": "65536", "fetch.wait.max.ms": "10"}
"""One record is wanted of each partition; the broker gives at least the batch that it is in."""


class Member(NamedTuple):
    """A consumer in a group, and the partitions that it was given."""

    id: str
    client: str
    host: str
    partitions: frozenset[Partition]


@dataclass(frozen=True)
class Group:
    """A consumer group; `committed` has the offsets that it goes on from, of the partitions that were asked for.

    `state` is Kafka's, in words such as `stable` and `empty`. Without `members` the broker does not tell them: the
    embedded one does not.
    """

    name: str
    state: str
    members: tuple[Member, ...] | None
    committed: Mapping[Partition, int]

    @property
    def topics(self) -> frozenset[str]:
        """Those that it has committed in, or has members on."""
        given = (partition for member in self.members or () for partition in member.partitions)
        return frozenset(partition.topic for partition in (*self.committed, *given))

    def owner(self, partition: Partition) -> Member | None:
        """The member that has this partition; None while nobody has."""
        return next((member for member in self.members or () if partition in member.partitions), None)


class Log(NamedTuple):
    """The offsets of a partition that can be read: from `start` to right before `end`, committed records only.

    What open transactions wrote is from there to right before `high_watermark`.
    """

    start: int
    end: int
    high_watermark: int = 0


class Stretch(NamedTuple):
    """Offsets of a partition from `start` to right before `end`."""

    partition: Partition
    start: int
    end: int


@dataclass(frozen=True)
class Lag:
    """What a group has not processed of a partition; `log` is what a reader of committed records can read of it.

    `committed` is None when the group never committed there: it begins at the beginning. `records` counts offsets, so
    that markers of transactions are among them. `since` is when the first unprocessed record was written.
    """

    group: str
    partition: Partition
    committed: int | None
    log: Log
    records: int
    member: Member | None = None
    since: datetime | None = None

    @property
    def unread(self) -> Stretch:
        """What is left to be read."""
        start, end, _ = self.log
        return Stretch(self.partition, start if self.committed is None else max(self.committed, start), end)

    @property
    def gap(self) -> Gap | None:
        """What was deleted before the group processed it, which stops a worker."""
        committed, (start, end, high_watermark) = self.committed, self.log
        # Who also reads what is not committed may be beyond the end.
        if committed is None or start <= committed <= max(end, high_watermark):
            return None
        return Gap(self.partition, committed, start, end)

    def seconds(self, now: datetime) -> float:
        """The age of the first record that is not processed; 0 when there is none."""
        return max(0.0, (now - self.since).total_seconds()) if self.since is not None else 0.0


def lags(groups: Iterable[Group], logs: Mapping[Partition, Log]) -> list[Lag]:
    """A row for each group and each partition of the topics that it reads; `logs` has all partitions of interest."""
    rows = []
    for group in sorted(groups, key=lambda group: group.name):
        for partition, log in sorted(logs.items()):
            if partition.topic in group.topics:
                row = Lag(group.name, partition, group.committed.get(partition), log, 0, group.owner(partition))
                _, start, end = row.unread
                rows.append(replace(row, records=max(0, end - start)))
    return rows


def dated(rows: Iterable[Lag], times: Mapping[Stretch, datetime | None]) -> list[Lag]:
    """The rows with the times of their first unprocessed records; nothing is left where there is no such record.

    `times` are what `FirstRecords` gives. Behind the last record there are often markers of transactions.
    """
    return [
        row
        if row.unread not in times
        else replace(row, since=at)
        if (at := times[row.unread])
        else replace(row, records=0)
        for row in rows
    ]


@dataclass(frozen=True)
class Snapshot:
    """Groups and their lags as they were at one moment."""

    at: datetime
    groups: Sequence[Group]
    lags: Sequence[Lag]

    def by_topic(self) -> Iterator[tuple[Group, str, list[Lag]]]:
        """The rows of each group and topic."""
        groups = {group.name: group for group in self.groups}
        for (name, topic), rows in groupby(self.lags, key=lambda lag: (lag.group, lag.partition.topic)):
            yield groups[name], topic, list(rows)


class Groups:
    """Asks one broker about groups; `names` are the groups of interest, all that there are without them.

    Each call raises `UnavailableError` when the broker does not answer, `SettingsError` when it cannot list its groups
    and none is named.
    """

    def __init__(self, client: AdminClient, names: Collection[str] = ()) -> None:
        self._client = client
        self._names = names

    def of(self, partitions: Sequence[Partition]) -> list[Group]:
        """The groups that have committed in one of these partitions, or have members on one."""
        names = sorted(self._names) if self._names else self._all()
        described = self._described(names)
        offsets = self._committed(names, partitions)
        topics = {partition.topic for partition in partitions}
        groups = (Group(name, *described[name], offsets[name]) for name in names)
        return [group for group in groups if group.topics & topics]

    def logs(self, partitions: Sequence[Partition]) -> dict[Partition, Log]:
        """Where partitions begin and end."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        starts = self._told(partitions, OffsetSpec.earliest(), committed=True)  # type: ignore[no-untyped-call]
        ends = self._told(partitions, latest, committed=True)
        highs = self._told(partitions, latest, committed=False)
        return {at: Log(starts[at].offset, ends[at].offset, highs[at].offset) for at in partitions}

    def latest(self, partitions: Sequence[Partition]) -> dict[Partition, datetime]:
        """The latest timestamps of partitions, of those that have records. The embedded broker does not tell them."""
        told = self._told(partitions, OffsetSpec.max_timestamp(), committed=False)  # type: ignore[no-untyped-call]
        return {
            partition: datetime.fromtimestamp(min(at.timestamp / 1000, _YEAR_9999), UTC)
            for partition, at in told.items()
            if at.offset >= 0
        }

    def _all(self) -> list[str]:
        found = _answer(self._client.list_consumer_groups(request_timeout=_CALL_TIMEOUT), "its groups")
        for error in found.errors:
            cause = error.args[0] if isinstance(error, KafkaException) else error
            if cause.code() == KafkaError._UNSUPPORTED_FEATURE:
                raise SettingsError(
                    "this broker does not list its groups (the embedded one cannot): name those you mean"
                )
            raise UnavailableError(f"the broker did not tell its groups: {cause.str()}")
        return sorted(listed.group_id for listed in found.valid)

    def _described(self, names: Sequence[str]) -> dict[str, tuple[str, tuple[Member, ...] | None]]:
        if not names:
            return {}
        asked = self._client.describe_consumer_groups(list(names), request_timeout=_CALL_TIMEOUT)
        found: dict[str, tuple[str, tuple[Member, ...] | None]] = {}
        for name, future in asked.items():
            try:
                group = _answer(future, f"the members of {name}")
            except _Refused as error:
                if error.code not in (KafkaError._UNSUPPORTED_FEATURE, KafkaError.GROUP_ID_NOT_FOUND):
                    raise
                is_unknown = error.code == KafkaError._UNSUPPORTED_FEATURE
                found[name] = ("unknown", None) if is_unknown else ("dead", ())
            else:
                members = sorted((_member(member) for member in group.members), key=lambda member: member.id)
                found[name] = group.state.name.lower().replace("_", " "), tuple(members)
        return found

    def _committed(self, names: Sequence[str], partitions: Sequence[Partition]) -> dict[str, dict[Partition, int]]:
        wanted = [TopicPartition(*partition) for partition in partitions]
        asked: dict[str, Future[Any]] = {}
        for name in names:
            request = [ConsumerGroupTopicPartitions(name, wanted)]
            asked |= self._client.list_consumer_group_offsets(request, request_timeout=_CALL_TIMEOUT)
        found: dict[str, dict[Partition, int]] = {}
        for name, future in asked.items():
            told = _answer(future, f"what {name} has committed").topic_partitions
            found[name] = {Partition(at.topic, at.partition): at.offset for at in told if at.offset >= 0}
        return found

    def _told(
        self, partitions: Sequence[Partition], spec: OffsetSpec, committed: bool
    ) -> dict[Partition, ListOffsetsResultInfo]:
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        asked = self._client.list_offsets(
            {TopicPartition(*partition): spec for partition in partitions},
            isolation_level=level,
            request_timeout=_CALL_TIMEOUT,
        )
        return {
            Partition(at.topic, at.partition): _answer(future, f"the offsets of {at.topic} [{at.partition}]")
            for at, future in asked.items()
        }


class FirstRecords:
    """Reads the first records of stretches, without a group; keeps a consumer until it is closed."""

    def __init__(self, settings: Settings, *, committed: bool = True) -> None:
        """As a reader of committed records sees it, or of all."""
        self._consumer = clients.reader(settings, settings.named("lag"), committed=committed, fetch=_SMALL_FETCHES)

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def times(self, stretches: Collection[Stretch], timeout: float = _CALL_TIMEOUT) -> dict[Stretch, datetime | None]:
        """When the first records were written; None where a stretch has no record.

        Raises `UnavailableError` when one cannot be read for `timeout` seconds.
        """
        found: dict[Stretch, datetime | None] = {}
        left = sorted(set(stretches))
        while left:
            # A partition is read from one place at a time; groups differ in theirs.
            at_once = {stretch.partition: stretch for stretch in reversed(left)}
            found |= self._read(at_once, timeout)
            left = [stretch for stretch in left if stretch not in found]
        return found

    def _read(self, stretches: Mapping[Partition, Stretch], timeout: float) -> dict[Stretch, datetime | None]:
        self._consumer.assign([TopicPartition(*at.partition, at.start) for at in stretches.values()])
        found: dict[Stretch, datetime | None] = {}
        deadline = time.monotonic() + timeout
        while left := {partition: stretch for partition, stretch in stretches.items() if stretch not in found}:
            if time.monotonic() >= deadline:
                names = ", ".join(f"{topic} [{number}]" for topic, number in sorted(left))
                raise UnavailableError(f"nothing could be read of {names} for {timeout:g} s")
            first = self._first(left)
            found |= {**dict.fromkeys(self._ended(left)), **first}
            # Whatever else there is of them would come before the others' first records.
            self._consumer.incremental_unassign([TopicPartition(*at.partition) for at in left.values() if at in found])
        return found

    def _first(self, stretches: Mapping[Partition, Stretch]) -> dict[Stretch, datetime | None]:
        """The first records that have come."""
        found: dict[Stretch, datetime | None] = {}
        for message in self._consumer.consume(_AT_ONCE, _WAIT):
            if (error := message.error()) is not None:
                if is_lasting(error):
                    raise FatalError(f"{message.topic()} cannot be read: {error.str()}")
            elif (stretch := stretches.get(partition_of(message))) and stretch.start <= message.offset() < stretch.end:
                found.setdefault(stretch, time_of(message) or datetime.fromtimestamp(_YEAR_9999, UTC))
        return found

    def _ended(self, stretches: Mapping[Partition, Stretch]) -> list[Stretch]:
        """Those that are read to their end."""
        positions = self._consumer.position([TopicPartition(*partition) for partition in stretches])
        return [
            stretch for at in positions if at.offset >= (stretch := stretches[Partition(at.topic, at.partition)]).end
        ]


def look(asked: Groups, first_records: FirstRecords, partitions: Sequence[Partition]) -> Snapshot:
    """The groups of these partitions and their lags as of now; raises as `Groups` and `FirstRecords` do."""
    groups = asked.of(partitions)
    # Ends that are taken after what is committed: what is committed in between is not behind its end.
    rows = lags(groups, asked.logs(partitions))
    times = first_records.times([row.unread for row in rows if row.records])
    return Snapshot(datetime.now(UTC), groups, dated(rows, times))


class _Refused(UnavailableError):
    """The broker answered with an error of this code, or not at all."""

    def __init__(self, what: str, error: KafkaError) -> None:
        super().__init__(f"the broker did not tell {what}: {error.str()}")
        self.code = error.code()


def _answer(future: Future[T], what: str) -> T:
    try:
        return future.result()
    except KafkaException as error:
        raise _Refused(what, error.args[0]) from error


def _member(told: Any) -> Member:
    given = frozenset(Partition(at.topic, at.partition) for at in told.assignment.topic_partitions)
    return Member(told.member_id, told.client_id, told.host.lstrip("/"), given)
