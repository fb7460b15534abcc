"""Handling each subject once: which ones were handled is kept in a changelog, in the transactions of their outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Generic

from confluent_kafka import Message

from braidstream.avro import E
from braidstream.deciding.handled import HandledSubjects
from braidstream.deciding.memory import Memory
from braidstream.errors import release
from braidstream.streaming.changelog import Restore
from braidstream.streaming.partition_states import PartitionStates
from braidstream.streaming.ports import Partition
from braidstream.streaming.processor import HandledBatch, HandlerProcessor, Positions, Rest, Work, of_partition
from braidstream.streaming.state_codecs import HandledCodec

_FORGOTTEN_AT_ONCE = 20_000
"""Subjects that are forgotten in one turn, besides as many as there are records in it: a transaction that carried a
million would run out."""


class OnceProcessor(Generic[E]):
    """Runs a handler over the events of one topic, of each subject once: of later events nothing comes.

    That is remembered for `remember` milliseconds, rounded up to a full second, in the changelog `topic`, unless more
    than `max_remembered` subjects are. A subject whose events became dead letters is not handled: it may be sent again.
    `clock` gives milliseconds since 1970, UTC.
    """

    joins = False
    stateful = True

    def __init__(
        self,
        handler: HandlerProcessor[E],
        topic: str,
        codec: HandledCodec,
        make_restore: Callable[[Callable[[int, str, int | None], None]], Restore[int]],
        *,
        remember: int,
        max_remembered: int,
        clock: Callable[[], int],
    ) -> None:
        self.topics = handler.topics
        self._handler = handler
        self._topic = topic
        self._codec = codec
        self._remember = remember
        self._memory = Memory(max_remembered)
        self._clock = clock
        self._partitions = PartitionStates(self.topics, HandledSubjects, make_restore, self._restored)
        self._subjects: Mapping[int, HandledSubjects] = self._partitions.by_number

    def rebalanced(self, revoked: Collection[Partition], assigned: Collection[Partition]) -> None:
        """Drop the state of what went, and begin to restore what came."""
        self._partitions.rebalanced(revoked, assigned)

    def held(self) -> Collection[Partition]:
        """What is being restored."""
        return self._partitions.held()

    def patience(self) -> float:
        """While state is being restored, none or little. What expires may do so late."""
        return self._partitions.patience()

    def prepare(self, records: Sequence[Message]) -> Rest:
        """Decode, and handle what is no repeat; what is left is to note what was handled, and to forget.

        What the batch before has staged counts: when that fails, this batch is undone with it.
        """
        now, subjects = self._clock(), self._subjects
        self._partitions.check(self._handler.partitions(records))
        batch = self._handler.handle(
            records, lambda record, subject_id: subjects[record.partition() or 0].includes(subject_id, now)
        )
        handled = _first_of_each(batch)
        work = self._handler.work(batch)
        work.counts["repeats"] += batch.repeats

        def rest(_: Positions) -> Work:
            self._partitions.restore()
            self._handler.finish(work, batch)
            expires_at = self._until(now)
            for number, subject_id in handled:
                subjects[number].add(subject_id, expires_at)
            self._forget(work, now, _FORGOTTEN_AT_ONCE + len(records))
            return work

        return rest

    def commit(self) -> None:
        """The changes are in the log."""
        self._partitions.commit()
        self._handler.commit()

    def rollback(self) -> None:
        """Be as before the batch in hand."""
        self._partitions.rollback()
        self._handler.rollback()

    def waiting_for(self) -> str | None:
        """What is being restored; a member without partitions is ready."""
        return self._partitions.waiting_for()

    def gauges(self) -> Mapping[str, int]:
        """Subjects that are remembered, and what is still to be restored."""
        remembered = sum(subjects.remembered for subjects in self._subjects.values())
        return {"handled": remembered, "restoring": self._partitions.restoring}

    def _until(self, now: int) -> int:
        """When that which is handled now is forgotten: with all that is handled in the same second."""
        return -(-(now + self._remember) // 1000) * 1000

    def _restored(self, subjects: HandledSubjects, subject_id: str, expires_at: int | None) -> None:
        # A REMEMBER that was lowered holds for what was handled before, too.
        latest = self._until(self._clock())
        subjects.restore(subject_id, min(expires_at, latest) if expires_at is not None else None)

    def _forget(self, work: Work, now: int, most: int) -> None:
        """Forget what is over or too much, and put everything that is staged into the work."""
        ready = {number: self._subjects[number] for number in self._partitions.ready}
        left = most
        for subjects in ready.values():
            left -= subjects.expire(now, left)
        self._memory.trim(ready.values(), now, left)
        for number, subjects in ready.items():
            if not (changes := subjects.changes()):
                continue
            encode = self._codec.encode
            values = [encode(subject_id, at) if at is not None else None for subject_id, at in changes.items()]
            work.states += of_partition(self._topic, number, changes, values)
            if subjects.forgotten_early:
                work.counts["forgotten_early"] += subjects.forgotten_early
            # With no offsets the broker would not check that this member still owns the partition.
            work.partitions |= {Partition(topic, number) for topic in self.topics}


def _first_of_each(batch: HandledBatch) -> Collection[tuple[int, str]]:
    """The subjects that were handled, by partition number; what came of further events of them is dropped."""
    handled: dict[tuple[int, str], None] = {}
    records, results = batch.records, batch.results
    for place, (index, subject_id) in enumerate(zip(batch.indexes, batch.keys, strict=True)):
        subject, result = (records[index].partition() or 0, subject_id), results[place]
        if subject in handled:
            results[place] = ()
            batch.repeats += 1
            if isinstance(result, Exception):
                release(result)
        elif not isinstance(result, Exception):
            handled[subject] = None
    return handled
