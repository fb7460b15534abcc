"""What is measured of a batch, for the price of a batch: nothing here may cost more for each record than a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import countOf, itemgetter

from confluent_kafka import Message

from braidstream.streaming.inbox import timestamp_of
from braidstream.streaming.processor import Work
from braidstream.streaming.publisher import Finish, OutRecord

SAMPLES = 30
"""Records of a batch, at most, whose timestamps are compared with the time at which their results are in the log."""

_topic_of = itemgetter(0)


def timed(finish: Finish, work: Work, began: float, clock: Callable[[], float]) -> Finish:
    """The same, which notes in the work how many seconds it took from `began` until all is in the log."""

    def timed() -> None:
        finish()
        work.transaction_seconds = clock() - began

    return timed


def sampled(records: Sequence[Message]) -> list[tuple[str, int]]:
    """Topics and timestamps of some records, evenly spread over the batch."""
    every = -(-len(records) // SAMPLES) or 1
    sample = [(str(record.topic()), timestamp_of(record)) for record in records[::every]]
    return [(topic, timestamp) for topic, timestamp in sample if timestamp is not None]


def by_topic(work: Work) -> Mapping[str, int]:
    """How many records are written to each topic."""
    counts: Counter[str] = Counter()
    for records in (work.records, work.states):
        counts.update(_by_topic(records))
    return counts


def _by_topic(records: Sequence[OutRecord]) -> Mapping[str, int]:
    if not records:
        return {}
    first = _topic_of(records[0])
    # Nearly always there is one topic, and counting one is three times as fast.
    of_first = countOf(map(_topic_of, records), first)
    return {first: of_first} if of_first == len(records) else Counter(map(_topic_of, records))
