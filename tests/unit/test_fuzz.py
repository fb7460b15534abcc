"""Ten thousand records and more with something wrong with them, against each worker.

Each is processed or a dead letter, in order; its neighbours lose nothing; and nothing of it stays in memory.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from confluent_kafka import Message
from numpy.typing import NDArray

from braidstream.avro import LocalSchemas
from braidstream.deciding.policy import Known, Verdict
from braidstream.errors import PoisonRecord
from braidstream.events import Events
from braidstream.pipelines import Topic
from braidstream.streaming.dead_letters import PREFIX, raw_headers
from braidstream.streaming.intake import Intake
from braidstream.streaming.ports import Partition
from braidstream.testing.broker import FakeBroker
from braidstream.testing.kit import PolicyKit, ScorerKit
from consumers.duration.features import FEATURES as DURATION
from consumers.tip.features import FEATURES as TIP
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.fuzzing import PREDICTIONS, SUBJECTS, Fuzz, Sent
from tests.unit.events import prediction, ride

FEATURES = {"duration": DURATION, "tip": TIP}
FUZZED = replace(RIDES, subjects=SUBJECTS, predictions=PREDICTIONS)
NO_LIMITS: dict[str, Any] = {"dead_letter_run": 10**9, "dead_letter_share": 1.0}
DAMAGED = 11_000
GOOD = [ride(f"good-{number}", trip_distance=float(number % 50)) for number in range(1_000)]


def predict(model: str) -> Callable[[Events[RideStarted]], NDArray[np.float64]]:
    """From the features of this model; raises for some of what is odd and valid."""

    def values(rides: Events[RideStarted]) -> NDArray[np.float64]:
        if any(len(name) > 6 and name.startswith("odd-1") and name.endswith("7") for name in rides.keys):
            raise ArithmeticError("an odd ride")
        return np.asarray(np.nan_to_num(FEATURES[model].matrix(rides)).sum(axis=1), np.float64)

    return values


def scorer_kit(model: str, **settings: Any) -> ScorerKit[RideStarted]:
    return ScorerKit(FUZZED, predict=predict(model), model=model, **NO_LIMITS, **settings)


def policy(known: Known[RideStarted]) -> Verdict | None:
    """Waits for both models; reads the event."""
    if known.event.passenger_count == 2**31 - 1:
        raise OverflowError("too many passengers")
    if not known.final:
        return None
    return Verdict("partial", known.missing) if known.missing else Verdict("complete")


def policy_kit() -> PolicyKit[RideStarted]:
    return PolicyKit(FUZZED, policy, expected=["duration", "tip"], deadline=30, remember=60, **NO_LIMITS)


def send(broker: FakeBroker, topic: str, records: Iterable[Sent]) -> None:
    for key, value, headers, _ in records:
        # By another hash than the broker's, which takes long for keys that are huge.
        broker.send(topic, key=key, value=value, headers=headers, partition=crc32(key or b"") % broker.partitions)


def place(message: Message) -> tuple[int | None, int | None]:
    return message.partition(), message.offset()


def source(message: Message, prefix: str) -> tuple[int, int]:
    """Which record an output says that it was made from; the last header of a name counts."""
    headers = dict(raw_headers(message))
    return int(headers[f"{prefix}partition"] or b""), int(headers[f"{prefix}offset"] or b"")


def sources(messages: Iterable[Message], prefix: str) -> list[tuple[int, int]]:
    """The same of all of them, which are in the order of their sources in each partition."""
    found = [source(message, prefix) for message in messages]
    assert sorted(found) == [at for number in range(4) for at in found if at[0] == number]
    assert len(set(found)) == len(found), "a record came twice"
    return found


@pytest.mark.parametrize("batch_size", [5000, 33, 1])
@pytest.mark.parametrize("model", FEATURES)
def test_a_model_predicts_or_refuses_every_record(model: str, batch_size: int) -> None:
    kit = scorer_kit(model, batch_size=batch_size)
    damaged = DAMAGED if batch_size > 1 else 2_000
    send(kit.broker, "ride_started", Fuzz(SUBJECTS, seed=1).records(damaged, GOOD))
    kit.run()
    sent = {place(message): message for message in kit.broker.records("ride_started")}
    predicted = sources(kit.broker.records("predictions"), "source.")
    letters = kit.broker.records("dead_letters")
    dead = sources(letters, PREFIX)
    assert len(sent) == damaged + len(GOOD)
    assert Counter(predicted) + Counter(dead) == Counter(sent.keys())
    assert len(dead) > damaged / 2
    for letter, at in zip(letters, dead, strict=True):
        assert (letter.key(), letter.value()) == (sent[at].key(), sent[at].value())
    expected = predict(model)(Events.of(RideStarted, GOOD, [event.ride_id for event in GOOD]))
    good = {found.subject_id: found.value for found in kit.predictions if found.subject_id.startswith("good-")}
    assert good == {event.ride_id: value for event, value in zip(GOOD, expected.tolist(), strict=True)}


def refused(topic: Topic[Any], messages: Iterable[Message]) -> set[tuple[int | None, int | None]]:
    """The places of the records that cannot be read, each read by itself."""
    intake = Intake(topic, LocalSchemas(topic.event_type), topic.name)
    found = set()
    for message in messages:
        try:
            intake.read(message)
        except PoisonRecord:
            found.add(place(message))
    return found


def test_a_decision_service_joins_or_refuses_every_record() -> None:
    kit = policy_kit()
    answers = [prediction(event.ride_id, model) for event in GOOD for model in ("duration", "tip")]
    send(kit.broker, "ride_started", Fuzz(SUBJECTS, seed=2).records(DAMAGED, GOOD))
    send(kit.broker, "predictions", Fuzz(PREDICTIONS, seed=3).records(DAMAGED, answers))
    kit.run()
    good = [made for made in kit.decisions if made.subject_id.startswith("good-")]
    assert sorted(made.subject_id for made in good) == sorted(event.ride_id for event in GOOD)
    assert all(made.complete and made.revision == 0 for made in good)
    for topic in (SUBJECTS, PREDICTIONS):
        unread = refused(topic, kit.broker.records(topic.name))
        letters = [
            letter
            for letter in kit.broker.records("dead_letters")
            if dict(raw_headers(letter))[f"{PREFIX}topic"] == topic.name.encode()
        ]
        by_stage = Counter(dict(raw_headers(letter))[f"{PREFIX}stage"] != b"TRANSFORMATION" for letter in letters)
        found = set(sources(letters, PREFIX))
        assert len(unread) > DAMAGED / 2
        assert unread <= found
        assert by_stage[True] == len(unread)
    kit.advance(seconds=31)
    kit.advance(seconds=61)
    assert set(kit.processor.gauges().values()) == {0}


ROUNDS = 4
OF_A_ROUND = 1_000
MOST_BYTES = 10
"""A reference takes 8 bytes: what is kept of every record takes more."""


def growth(round_of: Callable[[], None]) -> float:
    """Bytes by which memory grows in a round, after two that fill what is filled once."""
    round_of()
    tracemalloc.start()
    try:
        round_of()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(ROUNDS):
            round_of()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / ROUNDS


def forget_records(broker: FakeBroker) -> None:
    """As retention does, and compaction."""
    for topic in ("ride_started", "predictions", "decisions", "decision_state", "dead_letters"):
        for number in range(broker.partitions):
            partition = Partition(topic, number)
            broker.delete_records(partition, broker.log(partition).end)


def test_a_model_keeps_nothing_of_what_it_has_read() -> None:
    kit = scorer_kit("duration", batch_size=500)
    records = Fuzz(SUBJECTS, seed=4).records(OF_A_ROUND, [])

    def round_of() -> None:
        send(kit.broker, "ride_started", records)
        kit.run()
        forget_records(kit.broker)

    assert growth(round_of) / OF_A_ROUND < MOST_BYTES


def test_a_decision_service_keeps_nothing_of_what_is_forgotten() -> None:
    kit = policy_kit()
    rides = Fuzz(SUBJECTS, seed=5).records(OF_A_ROUND, [])
    predictions = Fuzz(PREDICTIONS, seed=6).records(OF_A_ROUND, [])

    def round_of() -> None:
        send(kit.broker, "ride_started", rides)
        send(kit.broker, "predictions", predictions)
        kit.run()
        kit.advance(seconds=31)
        kit.advance(seconds=61)
        forget_records(kit.broker)

    assert growth(round_of) / (2 * OF_A_ROUND) < MOST_BYTES
