"""Everything that is checked, in order; what cannot be asked is said, and the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from confluent_kafka import KafkaException, Message
from confluent_kafka.admin import AdminClient

from braidstream.cli.groups import FirstRecords, Groups, look
from braidstream.cli.letter_views import counted
from braidstream.cli.reading import read
from braidstream.cli.records import Decoder, Undecoded, is_of
from braidstream.doctor import broker, clocks, dead_letters, decisions, groups, models, registry, topics, transactions
from braidstream.doctor.case import Case
from braidstream.doctor.findings import Finding, wrong
from braidstream.doctor.topics import Configs
from braidstream.errors import BraidstreamError, UnavailableError
from braidstream.registry import schemas_for
from braidstream.streaming import clients
from braidstream.streaming import topics as kafka_topics
from braidstream.streaming.ports import Partition
from braidstream.streaming.replay import Letter, Place, replayed_by, time_of

_BETWEEN_LOOKS = 3.0
"""Seconds in which a worker that works commits something."""

_LATELY = timedelta(hours=1)
_AT_MOST = 1000
"""Records of a partition that are looked at."""

_PATIENCE = 10.0


def examine(case: Case, sleep: Callable[[float], None] = time.sleep) -> Iterator[Finding]:
    """Every finding, as it is found."""
    kafka: _Kafka | None = None
    try:
        kafka = _Kafka(case, *broker.reach(case.settings), sleep)
    except broker.Unreachable as error:
        yield error.finding
    else:
        yield broker.reached(case.settings, kafka.metadata)
    yield from registry.examine(case)
    if kafka is not None:
        yield from kafka.findings()
    yield from models.examine(case, kafka.served if kafka is not None else ())


class _Kafka:
    """What is checked on a broker that answers; `served` are the models whose groups are seen to have members."""

    def __init__(self, case: Case, client: AdminClient, metadata: Any, sleep: Callable[[float], None]) -> None:
        self.metadata = metadata
        self.served: set[str] = set()
        self._case = case
        self._client = client
        self._sleep = sleep
        self._asked = Groups(client)
        self._subjects = case.settings.named(case.pipeline.subjects.name)
        self._is_embedded = kafka_topics.is_embedded(metadata)
        there = {name: topic for name, topic in metadata.topics.items() if topic.error is None}
        self._partitions = [
            Partition(name, number)
            for name in case.topics
            if name in there
            for number in sorted(there[name].partitions)
        ]

    def findings(self) -> Iterator[Finding]:
        """Those of topics, and of what is in them and reads them."""
        checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [(topics.CHECK, self._topics)]
        if not self._is_embedded:
            checks += [
                (transactions.CHECK, self._transactions),
                (clocks.CHECK, self._clocks),
                (groups.CHECK, self._groups),
            ]
        checks += [(decisions.CHECK, self._partial), (dead_letters.CHECK, self._dead_letters)]
        for check, find in checks:
            try:
                yield from find()
            except (BraidstreamError, KafkaException) as error:
                yield wrong(check, f"could not be checked: {error}")

    def _topics(self) -> Iterator[Finding]:
        yield from topics.examine(self._case, self.metadata, self._configs)
        own = [partition for partition in self._partitions if partition.topic == self._subjects]
        if own and not self._is_embedded and not self._asked.latest(own):
            yield from topics.elsewhere(self._case, self._written_elsewhere(), datetime.now(UTC))

    def _written_elsewhere(self) -> dict[str, datetime]:
        """When topics of the subjects' name with another prefix were written to, of those that tell."""
        written: dict[str, datetime] = {}
        for topic, found in self.metadata.topics.items():
            if topic.endswith(self._case.pipeline.subjects.name) and topic != self._subjects:
                with suppress(UnavailableError):
                    latest = self._asked.latest([Partition(topic, number) for number in found.partitions])
                    written |= {topic: max(latest.values())} if latest else {}
        return written

    @cached_property
    def _configs(self) -> Configs:
        if self._is_embedded or not self._partitions:
            return {}
        return kafka_topics.configs_of(self._client, sorted({partition.topic for partition in self._partitions}))

    def _transactions(self) -> Iterator[Finding]:
        if self._partitions:
            held = transactions.held(self._asked.logs(self._partitions))
            with closing(FirstRecords(self._case.settings, committed=False)) as first_records:
                yield from transactions.examine(self._case, first_records.times(held), datetime.now(UTC))

    def _clocks(self) -> Iterator[Finding]:
        if self._partitions:
            yield from clocks.examine(self._asked.latest(self._partitions), datetime.now(UTC))

    def _groups(self) -> Iterator[Finding]:
        if not self._partitions:
            return
        with closing(FirstRecords(self._case.settings)) as first_records:
            before = after = look(self._asked, first_records, self._partitions)
            if groups.may_be_stuck(before):
                self._sleep(_BETWEEN_LOOKS)
                after = look(self._asked, first_records, self._partitions)
        prefix = self._case.settings.topic_prefix
        self.served = {group.name.removeprefix(prefix) for group in after.groups if group.members}
        yield from groups.examine(self._case, before, after)
        yield from decisions.waiting(self._case, after.groups, models.names_in(self._case.folder))
        # The last: who may read a topic may not always ask for its settings.
        yield from groups.retention(self._case, after, self._configs)

    def _partial(self) -> Iterator[Finding]:
        topic = self._case.pipeline.decisions
        decode = Decoder(schemas_for(self._case.settings, [topic.event_type]))
        records = [decode(message) for message in self._recent(topic.name)]
        yield from decisions.unreadable(
            [record.value.reason for record in records if isinstance(record.value, Undecoded)]
        )
        yield from decisions.partial(self._case, [record.value for record in records if is_of(topic, record)])

    def _dead_letters(self) -> Iterator[Finding]:
        if self._case.settings.named(self._case.pipeline.dead_letters) not in {at.topic for at in self._partitions}:
            return
        replayed: dict[Place, datetime | None] = {}
        letters = []
        for record in self._recent(self._case.pipeline.dead_letters):
            if (place := replayed_by(record)) is not None:
                replayed[place] = time_of(record)
            else:
                # They may be as large as a record can be, and thousands.
                letters.append(Letter.of(record)._replace(value=None, headers=[], stack_trace=""))
        yield from dead_letters.examine(self._case, counted(letters, replayed))

    def _recent(self, topic: str) -> Iterator[Message]:
        """The last records of a topic that are not older than an hour; none where there is no such topic."""
        name, since = self._case.settings.named(topic), datetime.now(UTC) - _LATELY
        if not (own := [partition for partition in self._partitions if partition.topic == name]):
            return
        logs = self._asked.logs(own)
        starts = {partition.number: max(log.start, log.end - _AT_MOST) for partition, log in logs.items()}
        ends = {partition.number: log.end for partition, log in logs.items()}
        with closing(clients.stretch_reader(self._case.settings, self._case.settings.named("doctor"))) as consumer:
            for record in read(consumer, name, starts, ends, timeout=_PATIENCE):
                if (at := time_of(record)) is not None and at >= since:
                    yield record
