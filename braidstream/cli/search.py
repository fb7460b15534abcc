"""The records of one subject, found in big topics: by key in one partition, by time in a stretch of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from confluent_kafka import Message

from braidstream.cli.reading import TopicReader
from braidstream.cli.records import Record, is_of
from braidstream.pipelines import Pipeline, Topic
from braidstream.settings import Settings
from braidstream.streaming.dead_letters import REPLAY_GROUP
from braidstream.streaming.partitioning import partition_of_key

SOON = timedelta(minutes=2)
LATE = timedelta(hours=1)
"""What came of an event is looked for this long after it: until late when no complete decision came soon."""

_CLOCKS = timedelta(minutes=1)
"""Records have their times by the clocks of those who wrote them."""
_EPOCH = datetime.fromtimestamp(0, UTC)
"""No broker has records from before."""

_TELL_EVERY = 50_000


class Sighting(NamedTuple):
    """A record of the subject; `topic` is the pipeline's name for where it is."""

    topic: str
    message: Message
    record: Record

    @property
    def sent_back_for(self) -> str | None:
        """The group that it was sent back for by `braidstream dlq replay`, if it was; the note of that says so too."""
        group = self.record.headers.get(REPLAY_GROUP)
        return group.decode(errors="replace") if group is not None else None


@dataclass
class Findings:
    """What a search found, and where it looked: from `since` to before `until`, None for as far as there was anything.

    `home` is the partition number that the subject's key belongs in, `numbers` are those that it was found in.
    """

    home: int
    since: datetime | None
    until: datetime | None = None
    numbers: Collection[int] = ()
    sightings: list[Sighting] = field(default_factory=list)


class Search:
    """Looks for one subject's records; `tell` hears what is being read, for a person who waits."""

    def __init__(
        self,
        reader: TopicReader,
        settings: Settings,
        pipeline: Pipeline[Any],
        *,
        decode: Callable[[Message], Record],
        subject_id: str,
        tell: Callable[[str], None],
        back: int = 100_000,
    ) -> None:
        """`reader` is of the subjects' topic. The last `back` records of a partition are looked through first."""
        self._reader = reader
        self._settings = settings
        self._pipeline = pipeline
        self._decode = decode
        self._subject_id = subject_id
        self._key = subject_id.encode(errors="surrogateescape")
        self._tell = tell
        self._back = back

    def run(self, since: datetime | None, now: datetime) -> Findings:
        """Everything from a time on; without one, the last event, its repeats nearby, and what came of them.

        Where its topic has no event of the subject any more, its last decision stands in for that.
        """
        found = Findings(partition_of_key(self._key, len(self._reader.numbers)), since)
        found.sightings = self._origins(found.home, since)
        if not found.sightings:
            return found
        found.numbers = {sighting.record.partition for sighting in found.sightings}
        times = [at for sighting in found.sightings for at in self._times(sighting)]
        if since is None and times:
            found.since = max(_EPOCH, min(times)) - _CLOCKS
        begin = found.since
        for reach in (SOON, LATE, None) if since is None and times else (None,):
            found.until = max(times) + reach if reach is not None and max(times) < now - reach else None
            found.sightings += self._consequences(found.numbers, begin, found.until)
            if found.until is None or self._is_decided(found, completely=reach is SOON):
                break
            begin = found.until
        found.sightings = list({(s.topic, s.record.partition, s.record.offset): s for s in found.sightings}.values())
        return found

    def oldest(self, number: int) -> datetime | None:
        """When the first record of a partition of the subjects' topic was written; None when there is none."""
        starts, ends = self._reader.between([number], None, None)
        first = next(self._reader.read(starts, ends), None)
        return self._decode(first).timestamp if first is not None else None

    def states(self, found: Findings) -> list[Sighting]:
        """What the decision service keeps of the subject, in order; nothing is looked for of one that is decided."""
        if self._is_decided(found, completely=False):
            return []
        return self._seen(self._pipeline.decision_state.name, found.numbers, found.since, found.until)

    def _origins(self, home: int, since: datetime | None) -> list[Sighting]:
        """The subject's events: in the partition of its key, else in any other; else its decisions."""
        subjects, decisions = self._pipeline.subjects.name, self._pipeline.decisions.name
        elsewhere = [number for number in self._reader.numbers if number != home]
        for topic, numbers in ((subjects, [home]), (subjects, elsewhere), (decisions, [home])):
            look = self._backwards(topic, numbers) if since is None else self._seen(topic, numbers, since, None)
            if look:
                return look
        return []

    def _backwards(self, topic: str, numbers: Collection[int]) -> list[Sighting]:
        """From the end back to the last record that was not sent back, and the others that are read with it."""
        found: list[Sighting] = []
        reader, there = self._open(topic, numbers)
        for lows, tops in reader.stretches(there, self._back):
            found += self._matching(topic, reader, lows, tops, is_keyed=True)
            if any(sighting.sent_back_for is None for sighting in found):
                break
        return found

    def _consequences(
        self, numbers: Collection[int], since: datetime | None, until: datetime | None
    ) -> Iterator[Sighting]:
        pipeline = self._pipeline
        own = {pipeline.subjects.key, pipeline.predictions.key}
        topics: tuple[Topic[Any], ...] = (pipeline.predictions, pipeline.decisions, *pipeline.others)
        for topic in topics:
            yield from self._seen(topic.name, numbers if topic.key in own else None, since, until)
        yield from self._seen(pipeline.dead_letters, numbers, since, until)

    def _seen(
        self, topic: str, numbers: Collection[int] | None, since: datetime | None, until: datetime | None
    ) -> list[Sighting]:
        """The subject's records of a time; without numbers those of any partition and key that name it in a field."""
        reader, there = self._open(topic, numbers)
        starts, ends = reader.between(there, since, until) if there else ({}, {})
        return list(self._matching(topic, reader, starts, ends, is_keyed=numbers is not None))

    def _open(self, topic: str, numbers: Collection[int] | None) -> tuple[TopicReader, Collection[int]]:
        """Its reader, and those of the partitions that are there; without numbers all. Of no topic, none."""
        name = self._settings.named(topic)
        if name not in self._reader.partitions:
            return self._reader, ()
        reader = self._reader.of(name)
        return reader, [number for number in reader.numbers if numbers is None or number in numbers]

    def _matching(
        self, topic: str, reader: TopicReader, starts: Mapping[int, int], ends: Mapping[int, int], *, is_keyed: bool
    ) -> Iterator[Sighting]:
        """Only what is returned is decoded."""
        key, total = self._key, sum(max(0, end - starts[number]) for number, end in ends.items())
        for count, message in enumerate(reader.read(starts, ends)):
            if count % _TELL_EVERY == 0:
                self._tell(f"reading {reader.name} {sorted(starts)}: {count:,} of {total:,} records")
            if message.key() == key if is_keyed else key in (message.value() or b""):
                record = self._decode(message)
                if is_keyed or (isinstance(record.value, dict) and self._subject_id in record.value.values()):
                    yield Sighting(topic, message, record)

    def _times(self, sighting: Sighting) -> Iterator[datetime]:
        """When a record was written, and when a decision was opened."""
        topic, record = self._pipeline.decisions, sighting.record
        if record.timestamp is not None:
            yield record.timestamp
        if sighting.topic == topic.name and is_of(topic, record):
            yield record.value["opened_at"]

    def _is_decided(self, found: Findings, *, completely: bool) -> bool:
        topic = self._pipeline.decisions
        decisions = (s.record.value for s in found.sightings if s.topic == topic.name and is_of(topic, s.record))
        return any(decision["complete"] or not completely for decision in decisions)
