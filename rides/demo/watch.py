"""Reads what comes out of the pipeline while it runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import TopicPartition

from braidstream.avro import Codec
from braidstream.errors import FatalError, RetriableError
from braidstream.pipelines import Topic
from braidstream.registry import schemas_for
from braidstream.settings import Settings
from braidstream.streaming import clients
from braidstream.streaming.ports import Partition
from rides.pipeline import RIDES
from schemas.decision import Decision
from schemas.prediction import Prediction

_ENDS_TIMEOUT = 30.0


@dataclass
class Seen:
    """What has come out so far: predictions by model and ride, and the last decision of each ride."""

    predictions: dict[str, dict[str, float]]
    decisions: dict[str, Decision] = field(default_factory=dict)
    decided_at: dict[str, float] = field(default_factory=dict)
    dead_letters: int = 0

    def slowest(self) -> int:
        """Rides that every model has predicted and that are decided, as far as counts can say."""
        return min(len(self.decisions), *(len(values) for values in self.predictions.values()))

    def take(self, event: Prediction | Decision, now: float) -> None:
        """Take note of one event."""
        if isinstance(event, Prediction):
            self.predictions.setdefault(event.model, {})[event.subject_id] = event.value
        else:
            self.decisions[event.subject_id] = event
            self.decided_at.setdefault(event.subject_id, now)

    def actions(self) -> Counter[str]:
        """How many rides each action was decided for."""
        return Counter(decision.action for decision in self.decisions.values())


class Watch:
    """Follows predictions, decisions and dead letters from their present ends on."""

    def __init__(self, settings: Settings, models: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.seen = Seen({model: {} for model in models})
        self._clock = clock
        schemas = schemas_for(settings, [topic.event_type for topic in RIDES.topics])
        topics: list[Topic[Any]] = [RIDES.predictions, RIDES.decisions]
        self._codecs: dict[str, Codec[Any]] = {
            settings.named(topic.name): Codec(topic.event_type, schemas, settings.named(topic.name)) for topic in topics
        }
        names = [*self._codecs, settings.named(RIDES.dead_letters)]
        partitions = [Partition(name, number) for name in names for number in range(settings.partitions)]
        ends = self._ends(settings, partitions)
        self._reader = clients.reader(settings, settings.named("demo"))
        self._reader.assign([TopicPartition(*partition, ends[partition]) for partition in partitions])

    def read(self, wait: float = 0.0) -> int:
        """Take what has come; the number of records."""
        records = self._reader.consume(2000, wait)
        now = self._clock()
        for record in records:
            if record.error() is not None:
                continue
            codec = self._codecs.get(record.topic())
            if codec is None:
                self.seen.dead_letters += 1
            else:
                self.seen.take(codec.decode(record.value()), now)
        return len(records)

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()

    def _ends(self, settings: Settings, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Where the partitions end; asked again for a while, since those of a new topic have no leader at first."""
        log_ends = clients.BrokerLogEnds(lambda: clients.admin(settings))
        deadline = self._clock() + _ENDS_TIMEOUT
        answer = log_ends.ask(partitions)
        while self._clock() < deadline:
            try:
                if (ends := answer()) is not None:
                    return dict(ends)
            except RetriableError:
                answer = log_ends.ask(partitions)
            time.sleep(0.05)
        raise FatalError(f"the broker did not tell within {_ENDS_TIMEOUT:g} s where its topics end")
