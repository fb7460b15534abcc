"""The decision service's work: joins subjects with their predictions, partition by partition, with a changelog."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import structlog
from confluent_kafka import Message

from braidstream.avro import Codec, E
from braidstream.deciding.join import Decided, Join, PolicyError, Rules, State
from braidstream.deciding.memory import Memory
from braidstream.deciding.policy import Evidence
from braidstream.errors import PoisonRecord
from braidstream.events import Events
from braidstream.streaming import encoding
from braidstream.streaming.changelog import Restore
from braidstream.streaming.dead_letters import Addressed
from braidstream.streaming.evidence_header import evidence_header, evidence_of
from braidstream.streaming.fence import Fence
from braidstream.streaming.intake import Intake
from braidstream.streaming.partition_states import WHILE_ASKING, PartitionStates
from braidstream.streaming.ports import Headers, Partition, partition_of
from braidstream.streaming.processor import DeadLetters, Positions, Rest, Work, counted, of_partition
from braidstream.streaming.state_codecs import StateCodec
from braidstream.streaming.traceparent import HEADER
from schemas import decision
from schemas.prediction import Prediction

_LEAST_PATIENCE = 0.02
"""Seconds: where thousands of subjects expire each second the loop would otherwise turn for each millisecond."""

_ENDED_AT_ONCE = 20_000
"""Subjects that the clock decides or forgets in one turn: a transaction that carried a million would run out."""
DEADLINES = "deadlines"

A = TypeVar("A")


@dataclass(frozen=True)
class DecisionTopics(Generic[E]):
    """What the decision service reads and writes, by full topic names."""

    subjects: Intake[E]
    predictions: Intake[Prediction]
    decisions: str
    decision_codec: Codec[decision.Decision]
    state: str
    state_codec: StateCodec


class Arrivals(NamedTuple, Generic[A]):
    """What a batch holds for the joins, as columns: partition numbers, subjects, what came of each, and its trace.

    `places` are the indexes in the batch.
    """

    places: Sequence[int]
    numbers: Sequence[int]
    subject_ids: Sequence[str]
    contents: Sequence[A]
    traceparents: Sequence[bytes | None]


class Decoded(NamedTuple):
    """A batch, decoded: the values of the subjects' events, the predictions, and why the rest is neither, by index.

    `consumed` counts the records by topic; `carried` are the predictions, by index, that events brought with them which
    failed at their deadline and were sent back. `counted` are the indexes of the records of each topic that count for
    the limits of dead letters.
    """

    events: Arrivals[bytes]
    predictions: Arrivals[Evidence]
    carried: Mapping[int, Sequence[Evidence]]
    errors: dict[int, Exception]
    partitions: set[Partition]
    consumed: Mapping[str, int]
    counted: Mapping[str, Sequence[int]]


class DecisionProcessor(Generic[E]):
    """Reads subjects' events and predictions, publishes decisions and their changelog.

    A partition number is acted on while it is owned in both topics and its state is restored. `max_open` bounds the
    open decisions: at it, no new subjects are read. `max_remembered` bounds the closed ones: at it, the oldest are
    forgotten. `grace` in milliseconds is how late a deadline may fire before it is logged. `clock` gives milliseconds
    since 1970, UTC. `stopwatch` gives seconds.
    """

    joins = True
    stateful = True

    def __init__(
        self,
        topics: DecisionTopics[E],
        rules: Rules[E],
        dead_letters: DeadLetters,
        fence: Fence,
        make_restore: Callable[[Callable[[int, str, State | None], None]], Restore[State]],
        *,
        max_open: int,
        max_remembered: int,
        grace: int,
        clock: Callable[[], int],
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.topics: tuple[str, ...] = (topics.subjects.name, topics.predictions.name)
        self._topics = topics
        self._decision_head = encoding.decision_head(topics.decision_codec)
        self._rules = rules
        self._dead_letters = dead_letters
        self._fence = fence
        self._max_open = max_open
        self._memory = Memory(max_remembered)
        self._grace = grace
        self._clock = clock
        self._stopwatch = stopwatch
        self._partitions = PartitionStates(
            self.topics, lambda: Join(rules, topics.state_codec), make_restore, self._restored
        )
        self._joins: Mapping[int, Join[E]] = self._partitions.by_number
        self._full: str | None = None
        self._log = structlog.get_logger()

    def rebalanced(self, revoked: Collection[Partition], assigned: Collection[Partition]) -> None:
        """Drop the state of what went, and begin to restore what came."""
        self._fence.forget([*revoked, *assigned])
        self._partitions.rebalanced(revoked, assigned)

    def held(self) -> Collection[Partition]:
        """What is being restored, what is owned in one topic only, and the topic that too much is held of."""
        return self._partitions.held() | {p for p in self._partitions.owned if p.topic == self._full}

    def patience(self) -> float:
        """Until the next deadline, or a little longer; not at all while state is being restored."""
        busy = min(self._partitions.patience(), WHILE_ASKING if self._fence.busy else float("inf"))
        if busy <= WHILE_ASKING:
            return busy
        expiries = [at for join in self._joins.values() if (at := join.next_expiry()) is not None]
        return max(_LEAST_PATIENCE, (min(expiries) - self._clock()) / 1000) if expiries else float("inf")

    def prepare(self, records: Sequence[Message]) -> Rest:
        """Decode the records; what is left is to join them, let deadlines fire, and collect what changed."""
        batch = self._dead_letters.addressed(records)
        decoded = self._read(batch)

        def rest(positions: Positions) -> Work:
            for number in self._partitions.restore():
                self._log.info("open decisions", partition=number, open=self._joins[number].open)
            now, began = self._clock(), self._stopwatch()
            work = Work(partitions=set(decoded.partitions), consumed=decoded.consumed, taken=batch)
            work.counts["in"] = len(records)
            if batch.skipped:
                work.counts["skipped"] = len(batch.skipped)
            self._dead_letters.add(work, batch.records, self._join(decoded, now), decoded.counted)
            self._dead_letters.observe(DEADLINES, [None] * sum(join.decided for join in self._joins.values()))
            self._expire(work, positions, now)
            ready = [self._joins[number] for number in self._partitions.ready]
            self._memory.trim(ready, now, _ENDED_AT_ONCE + len(records))
            work.handler_seconds = self._stopwatch() - began
            for number in self._partitions.ready:
                self._collect(work, number)
            work.counts["out"] = work.counts["decisions"]
            self._full = self._which_is_full()
            return work

        return rest

    def commit(self) -> None:
        """The changes are in the log."""
        self._partitions.commit()
        self._dead_letters.commit()

    def rollback(self) -> None:
        """Be as before the batch in hand; what is read again has yet to be proven read."""
        self._partitions.rollback()
        self._dead_letters.rollback()
        self._fence.forget(self._partitions.owned)
        self._full = self._which_is_full()

    def waiting_for(self) -> str | None:
        """What is being restored; a member without partitions is ready."""
        return self._partitions.waiting_for()

    def gauges(self) -> Mapping[str, int]:
        """Open decisions, and everything that is held."""
        return {
            "open": sum(join.open for join in self._joins.values()),
            "waiting": sum(join.waiting for join in self._joins.values()),
            "subjects_held": sum(len(join) for join in self._joins.values()),
            "restoring": self._partitions.restoring,
        }

    def _which_is_full(self) -> str | None:
        """The topic that is not read for now.

        At the limit of open decisions no new subjects are read, and predictions drain. But at the limit of
        predictions that wait for their subjects, it is the subjects that have to be read.
        """
        if sum(join.waiting for join in self._joins.values()) >= self._max_open:
            full = self._topics.predictions.name
        elif sum(join.open for join in self._joins.values()) >= self._max_open:
            full = self._topics.subjects.name
        else:
            full = None
        if full is not None and full != self._full:
            self._log.warning("too much is open (MAX_OPEN): a topic is paused", topic=full, **self.gauges())
        return full

    def _restored(self, join: Join[E], subject_id: str, state: State | None) -> None:
        if state is not None and state.outcome is not None:
            # A REMEMBER that was lowered holds for what was closed before, too.
            state = state._replace(expires_at=min(state.expires_at, self._clock() + self._rules.remember))
        join.restore(subject_id, state)

    def _read(self, batch: Addressed) -> Decoded:
        """Decode a batch; this needs no state."""
        records = batch.records
        topics = [record.topic() for record in records]
        numbers = [record.partition() or 0 for record in records]
        subjects, predictions = self._topics.subjects, self._topics.predictions
        errors: dict[int, Exception] = {}
        places: dict[str, Sequence[int]] = {}

        def read(intake: Intake[Any]) -> tuple[Events[Any], list[int]]:
            places[intake.name] = of_topic = [place for place, topic in enumerate(topics) if topic == intake.name]
            events, indexes, failed = intake.read_all([records[place] for place in of_topic])
            errors.update((of_topic[index], error) for index, error in failed.items())
            return events, [of_topic[index] for index in indexes]

        events, of_events = read(subjects)
        predicted, of_predictions = read(predictions)
        names = (map(sys.intern, predicted.columns[name].tolist()) for name in ("model", "model_version"))
        evidence = list(map(Evidence, *names, predicted.columns["value"].tolist()))
        values = [records[place].value() or b"" for place in of_events]

        def arrivals(places: list[int], subject_ids: Sequence[str], contents: Sequence[A]) -> Arrivals[A]:
            return Arrivals(places, [numbers[place] for place in places], subject_ids, contents, batch.traces(places))

        return Decoded(
            arrivals(of_events, events.keys, values),
            arrivals(of_predictions, predicted.keys, evidence),
            _carried(batch, of_events),
            errors,
            {Partition(str(topic), number) for topic, number in set(zip(topics, numbers, strict=True))}.union(
                map(partition_of, batch.skipped)
            ),
            {name: topics.count(name) + sum(at.topic() == name for at in batch.skipped) for name in self.topics},
            {name: counted(of_topic, batch.sent_back) for name, of_topic in places.items()},
        )

    def _join(self, decoded: Decoded, now: int) -> dict[int, Exception]:
        """Give what was read to the joins; the errors of the records that they refuse, or that could not be read."""
        self._partitions.check(decoded.partitions)
        joins, errors = self._joins, dict(decoded.errors)
        carried = decoded.carried
        for place, number, subject_id, value, traceparent in zip(*decoded.events, strict=True):
            try:
                if place in carried:
                    joins[number].event_after_deadline(subject_id, value, carried[place], now, traceparent)
                else:
                    joins[number].event(subject_id, value, now, traceparent)
            except PolicyError as error:
                errors[place] = error
        for place, number, subject_id, evidence, traceparent in zip(*decoded.predictions, strict=True):
            try:
                joins[number].prediction(subject_id, evidence, now, traceparent)
            except (PolicyError, PoisonRecord) as error:
                errors[place] = error
        return errors

    def _expire(self, work: Work, positions: Positions, now: int) -> None:
        """End what is due, and may be; a deadline at which the policy fails gives a dead letter."""
        due = {number for number in self._partitions.ready if self._joins[number].due(now)}
        if due:
            self._fence.ask([Partition(topic, number) for number in due for topic in self.topics], now)
        if not self._fence.busy:
            return
        self._fence.update(positions())
        most = -(-_ENDED_AT_ONCE // max(1, len(due)))
        failures: list[tuple[int, PolicyError]] = []
        for number in due:
            events, predictions = (self._fence.proven(Partition(topic, number)) for topic in self.topics)
            outcomes = self._joins[number].advance(now, predictions, events, most)
            self._dead_letters.observe(DEADLINES, outcomes)
            failures += [(number, outcome) for outcome in outcomes if outcome is not None]
        if failures:
            self._give_up(work, failures)

    def _give_up(self, work: Work, failures: Sequence[tuple[int, PolicyError]]) -> None:
        """No record is at fault when the policy fails at a deadline: the subject's own event is the dead letter.

        It carries the predictions, which are forgotten with the subject: sent back, the decision is made with them.
        """
        events = []
        for number, error in failures:
            join = self._joins[number]
            state = join.state(error.subject_id)
            assert state is not None
            event = Message(
                topic=self._topics.subjects.name,
                partition=number,
                key=error.subject_id.encode(),
                value=state.event,
                headers=[evidence_header(state.evidence), *_trace(state.traceparent)],
            )
            events.append(event)
            join.forget(error.subject_id)
        self._dead_letters.add(work, events, {at: error for at, (_, error) in enumerate(failures)}, {})

    def _collect(self, work: Work, number: int) -> None:
        changes = self._joins[number].changes()
        if not changes.states and not changes.counts:
            return
        work.counts += Counter(changes.counts)
        work.counts["decisions"] += len(changes.decisions)
        self._tell_of_late_ones(work, number, changes.decisions)
        made, head, states = changes.decisions, self._decision_head, changes.states
        values = [encoding.decision(head, decided) for decided in made]
        subject_ids = [decided.subject_id for decided in made]
        traces = [_trace(decided.traceparent) for decided in made]
        work.records += of_partition(self._topics.decisions, number, subject_ids, values, traces)
        work.states += of_partition(self._topics.state, number, states.keys(), states.values())
        if changes.counts.get("orphans"):
            self._log.warning(
                "predictions without a subject dropped", partition=number, subjects=changes.counts["orphans"]
            )
        # With no offsets the broker would not check that this member still owns the partition.
        work.partitions |= {Partition(topic, number) for topic in self.topics}

    def _tell_of_late_ones(self, work: Work, number: int, decisions: Sequence[Decided]) -> None:
        limit = self._rules.deadline + self._grace
        took = [d.decided_at - d.opened_at for d in decisions if d.missing and d.revision == 0]
        if late := [milliseconds for milliseconds in took if milliseconds > limit]:
            work.counts["late_decisions"] += len(late)
            self._log.warning(
                "decided later than DEADLINE_GRACE after the deadline: the predictions had to be read first",
                partition=number,
                decisions=len(late),
                most_seconds_after_deadline=(max(late) - self._rules.deadline) / 1000,
            )


def _trace(traceparent: bytes | None) -> Headers:
    return [(HEADER, traceparent)] if traceparent is not None else []


def _carried(batch: Addressed, of_events: Sequence[int]) -> dict[int, list[Evidence]]:
    """The predictions that events carry which were sent back, by index."""
    found = {place: evidence_of(batch.records[place]) for place in batch.sent_back.intersection(of_events)}
    return {place: evidence for place, evidence in found.items() if evidence is not None}
