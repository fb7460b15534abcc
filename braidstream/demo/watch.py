"""Reads what comes out of the pipeline while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import TopicPartition

from braidstream.avro import Codec
from braidstream.dashboard.recent import Recent
from braidstream.errors import PoisonRecord
from braidstream.pipelines import Pipeline, Topic
from braidstream.registry import schemas_for
from braidstream.settings import Settings
from braidstream.streaming import clients
from braidstream.streaming.ports import Partition
from schemas.decision import Decision
from schemas.prediction import Prediction

Follow = tuple[Topic[Any], Callable[[Any], None]]
"""A further topic, and what is called with each of its events."""


@dataclass
class Seen:
    """What has come out so far: predictions by model and subject, and the revisions of each subject's decision.

    It begins with the models that are awaited; predictions of others are left out.
    """

    predictions: dict[str, dict[str, float]]
    decisions: dict[str, list[Decision]] = field(default_factory=dict)
    decided_at: dict[str, float] = field(default_factory=dict)
    dead_letters: int = 0

    def slowest(self) -> int:
        """Subjects that every model has predicted and that are decided, as far as counts can say."""
        return min([len(self.decisions), *(len(values) for values in self.predictions.values())])

    def take(self, event: Prediction | Decision, now: float) -> None:
        """Take note of one event; one that comes again changes nothing."""
        if isinstance(event, Prediction):
            if event.model in self.predictions:
                self.predictions[event.model][event.subject_id] = event.value
            return
        revisions = self.decisions.setdefault(event.subject_id, [])
        self.decided_at.setdefault(event.subject_id, now)
        if event.revision >= len(revisions):
            revisions.append(event)


class Watch:
    """Follows predictions, decisions, dead letters and further topics from their present ends on.

    `counts` are the records so far of each, and `decided` the latest decisions. Topics have their full names.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline[Any],
        models: Sequence[str],
        *also: Follow,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seen = Seen({model: {} for model in models})
        self.decided: Recent[Decision] = Recent()
        self.subjects = settings.named(pipeline.subjects.name)
        self.dead_letters = settings.named(pipeline.dead_letters)
        self._clock = clock
        followed: list[Follow] = [(pipeline.predictions, self._take), (pipeline.decisions, self._take), *also]
        schemas = schemas_for(settings, [topic.event_type for topic, _ in followed])
        self._readers: dict[str, tuple[Codec[Any], Callable[[Any], None]]] = {}
        for topic, take in followed:
            name = settings.named(topic.name)
            self._readers[name] = Codec(topic.event_type, schemas, name), take
        first = (settings.named(pipeline.predictions.name), settings.named(pipeline.decisions.name), self.dead_letters)
        self.counts = dict.fromkeys((*first, *self._readers), 0)
        partitions = [Partition(name, number) for name in self.counts for number in range(settings.partitions)]
        ends = clients.ends_of(settings, partitions)
        self._reader = clients.reader(settings, settings.named("demo"))
        self._reader.assign([TopicPartition(*partition, ends[partition]) for partition in partitions])

    def read(self, wait: float = 0.0) -> int:
        """Take what has come, waiting for up to so many seconds; the number of records."""
        records = self._reader.consume(2000, wait)
        for record in records:
            if record.error() is not None:
                continue
            self.counts[topic := record.topic()] += 1
            if topic == self.dead_letters:
                self.seen.dead_letters += 1
            elif record.value() is not None:
                codec, take = self._readers[topic]
                # What somebody else wrote there is for the workers to refuse.
                with suppress(PoisonRecord):
                    take(codec.decode(record.value()))
        return len(records)

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()

    def _take(self, event: Prediction | Decision) -> None:
        now = self._clock()
        self.seen.take(event, now)
        if isinstance(event, Decision):
            self.decided.add(now, event)
