"""Says whether what is in the topics is what a pure function of the input says: each once, or at least once."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from braidstream.streaming.dead_letters import PREFIX
from braidstream.streaming.ports import Partition
from braidstream.streaming.scoring import prediction_ids
from rides.pipeline import RIDES
from schemas.prediction import Prediction
from schemas.ride_started import RideStarted
from tests.faults.decision_rules import decision_violations
from tests.faults.observed import Model, Observed, Promise, Read, Violation

__all__ = ["Model", "Observed", "Promise", "Read", "Violation", "check"]

TOLERANCE = 1e-5
"""Relative, and absolute below 1: a model adds 32-bit floats in another order when it is given other batches."""


def check(observed: Observed, promise: Promise) -> list[Violation]:
    """Everything that is not as promised, in the order of the pipeline; empty when all is well."""
    return [
        *_unreadable(observed, promise),
        *_input(observed),
        *_witnessed(observed),
        *_predictions(observed, promise),
        *decision_violations(observed, promise),
        *_offsets(observed, promise),
        *_dead_letters(observed, promise),
    ]


def _unreadable(observed: Observed, promise: Promise) -> Iterator[Violation]:
    outputs: dict[str, Sequence[Read[Any]]] = {
        RIDES.predictions.name: observed.predictions,
        RIDES.decisions.name: observed.decisions,
        RIDES.decision_state.name: observed.states,
    }
    for topic, records in outputs.items():
        for record in records:
            if record.problem is not None:
                where = f"{promise.prefix}{topic} [{record.partition}] offset {record.offset}"
                yield Violation("wrong", where, f"cannot be read: {record.problem}")


def _input(observed: Observed) -> Iterator[Violation]:
    there = {record.value.ride_id for record in observed.rides if record.value is not None}
    for ride in set(observed.acknowledged) - there:
        yield Violation("lost", ride, "was acknowledged to the producer and is not in ride_started")


def _witnessed(observed: Observed) -> Iterator[Violation]:
    there = {(record.partition, record.offset) for record in observed.predictions}
    for partition, offset in observed.seen.keys() - there:
        yield Violation(
            "lost", f"predictions [{partition}] offset {offset}", "a reader of committed records saw it, and it is gone"
        )


def _predictions(observed: Observed, promise: Promise) -> Iterator[Violation]:
    """For each record of a ride one prediction of each model, however often the ride was sent."""
    found: dict[tuple[int, int], list[Read[Prediction]]] = defaultdict(list)
    sources = {(record.partition, record.offset) for record in observed.rides if record.value is not None}
    topic = f"{promise.prefix}{RIDES.subjects.name}".encode()
    for record in observed.predictions:
        source = _source(record, topic)
        if source not in sources:
            where = f"predictions [{record.partition}] offset {record.offset}"
            yield Violation("wrong", where, f"its headers name no ride: {dict(record.headers)}")
        elif record.value is not None and record.value.model not in promise.models:
            yield Violation("wrong", record.value.subject_id, f"predicted by {record.value.model}, which does not run")
        else:
            found[source].append(record)
    rides = [record for record in observed.rides if record.value is not None]
    for name, model in promise.models.items():
        yield from _of_model(rides, found, name, model, exact=promise.exact)


def _source(record: Read[Prediction], topic: bytes) -> tuple[int, int]:
    """The partition and the offset of what a prediction was made from, as its headers say."""
    partition, offset = (record.headers.get(f"source.{name}") or b"" for name in ("partition", "offset"))
    is_told = record.headers.get("source.topic") == topic and partition.isdigit() and offset.isdigit()
    return (int(partition), int(offset)) if is_told else (-1, -1)


def _of_model(
    rides: Sequence[Read[RideStarted]],
    found: dict[tuple[int, int], list[Read[Prediction]]],
    name: str,
    model: Model,
    *,
    exact: bool,
) -> Iterator[Violation]:
    events = [record.value for record in rides if record.value is not None]
    values = model.predict(events) if events else ()
    ids = prediction_ids([event.ride_id.encode() for event in events], name, model.version)
    for record, event, value, prediction_id in zip(rides, events, values, ids, strict=True):
        here = [p for p in found[record.partition, record.offset] if p.value is not None and p.value.model == name]
        at = f"ride {event.ride_id} (offset {record.offset} of partition {record.partition})"
        if not here:
            yield Violation("lost", at, f"no prediction of {name}")
        if exact and len(here) > 1:
            offsets = [p.offset for p in here]
            yield Violation("twice", at, f"{len(here)} predictions of {name}, at the offsets {offsets}")
        expected = _Expected(prediction_id.tobytes().decode(), event.ride_id, model.version, float(value))
        for prediction in here:
            yield from _differences(prediction, expected, record.partition, at)


class _Expected(NamedTuple):
    prediction_id: str
    subject_id: str
    model_version: str
    value: float


def _differences(read: Read[Prediction], expected: _Expected, source: int, at: str) -> Iterator[Violation]:
    prediction = read.value
    assert prediction is not None
    for name in ("prediction_id", "subject_id", "model_version"):
        has, should = getattr(prediction, name), getattr(expected, name)
        if has != should:
            yield Violation("wrong", at, f"{prediction.model}: {name} is {has!r}, not {should!r}")
    if not math.isclose(prediction.value, expected.value, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        what = f"{prediction.model} predicts {expected.value}, and {prediction.value} was published"
        yield Violation("wrong", at, what)
    if read.key != expected.subject_id.encode():
        yield Violation("wrong", at, f"{prediction.model}: the prediction has the key {read.key!r}")
    if read.partition != source:
        yield Violation("wrong", at, f"{prediction.model}: the prediction is on partition {read.partition}")


def _offsets(observed: Observed, promise: Promise) -> Iterator[Violation]:
    """Each group has committed the end of all that it reads, no more and no less."""
    ends: Counter[Partition] = Counter()
    inputs: Sequence[tuple[str, Sequence[Read[Any]]]] = (
        (RIDES.subjects.name, observed.rides),
        (RIDES.predictions.name, observed.predictions),
    )
    for topic, records in inputs:
        for record in records:
            partition = Partition(f"{promise.prefix}{topic}", record.partition)
            ends[partition] = max(ends[partition], record.offset + 1)
    for group, topics in promise.readers.items():
        committed = observed.committed.get(group, {})
        for partition in sorted(ends.keys() | committed.keys()):
            has, should = committed.get(partition, 0), ends[partition]
            if partition.topic in topics and has != should:
                where = f"{partition.topic} [{partition.number}]"
                yield Violation(
                    "lost" if has < should else "wrong", where, f"{group} has committed {has}, and it ends at {should}"
                )


def _dead_letters(observed: Observed, promise: Promise) -> Iterator[Violation]:
    """Each group that reads a record which is no event has put it there, and nobody anything else."""
    expected: dict[tuple[str, str, int, int], Read[Any]] = {}
    inputs: dict[str, Sequence[Read[Any]]] = {
        RIDES.subjects.name: observed.rides,
        RIDES.predictions.name: observed.predictions,
    }
    for name, records in inputs.items():
        topic = f"{promise.prefix}{name}"
        groups = [group for group, topics in promise.readers.items() if topic in topics]
        bad = [record for record in records if record.problem is not None]
        expected |= {(group, topic, r.partition, r.offset): r for group in groups for r in bad}
    found: Counter[tuple[str, str, int, int]] = Counter()
    for letter in observed.dead_letters:
        origin = _origin(letter)
        found[origin] += 1
        group, topic, partition, offset = origin
        where = f"{topic} [{partition}] offset {offset}"
        if (source := expected.get(origin)) is None:
            why = letter.headers.get(f"{PREFIX}exception.message")
            yield Violation("wrong", where, f"{group} has a dead letter of a record that is well: {why!r}")
        elif (letter.key, letter.raw, letter.partition) != (source.key, source.raw, source.partition):
            yield Violation("wrong", where, f"the dead letter of {group} is not the record as it was")
    for group, topic, partition, offset in expected.keys() - found.keys():
        yield Violation("lost", f"{topic} [{partition}] offset {offset}", f"{group} has no dead letter of it")
    for (group, topic, partition, offset), count in found.items():
        if promise.exact and count > 1:
            yield Violation(
                "twice", f"{topic} [{partition}] offset {offset}", f"{group} has {count} dead letters of it"
            )


def _origin(letter: Read[bytes]) -> tuple[str, str, int, int]:
    group, topic, partition, offset = (
        (letter.headers.get(f"{PREFIX}{name}") or b"").decode() for name in ("group", "topic", "partition", "offset")
    )
    return group, topic, int(partition or -1), int(offset or -1)
