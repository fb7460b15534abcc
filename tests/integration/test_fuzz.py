"""Thousands of records with something wrong with them, against the real workers on real Kafka."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any
from zlib import crc32

import pytest
from confluent_kafka import Message

from braidstream.avro import LocalSchemas
from braidstream.errors import PoisonRecord
from braidstream.pipelines import Topic
from braidstream.streaming.clients import plain_producer
from braidstream.streaming.dead_letters import PREFIX, raw_headers
from braidstream.streaming.intake import Intake
from rides.pipeline import RIDES
from tests.fuzzing import PREDICTIONS, SUBJECTS, Fuzz, Sent
from tests.integration.ride_pipeline import MODELS, RidePipeline
from tests.unit.events import ride

pytestmark = pytest.mark.docker

DAMAGED = 2_000
GOOD = [ride(f"good-{number}", trip_distance=float(number % 50)) for number in range(500)]
NO_LIMITS = {"DEAD_LETTER_RUN": "1000000", "DEAD_LETTER_SHARE": "1"}


def send(pipeline: RidePipeline, topic: str, records: Iterable[Sent]) -> None:
    producer = plain_producer(pipeline.settings, "fuzz")
    name = pipeline.settings.named(topic)
    for key, value, headers, _ in records:
        producer.produce(name, value, key, crc32(key or b"") % pipeline.settings.partitions, headers=headers)
    assert producer.flush(60) == 0


def refused(topic: Topic[Any], records: Iterable[Message]) -> list[tuple[int | None, int | None]]:
    """The places of the records that cannot be read, each read by itself."""
    intake = Intake(topic, LocalSchemas(*(known.event_type for known in RIDES.topics)), topic.name)
    found = []
    for record in records:
        try:
            intake.read(record)
        except PoisonRecord:
            found.append((record.partition(), record.offset()))
    return found


def source(record: Message, prefix: str) -> tuple[int, int]:
    headers = dict(raw_headers(record))
    return int(headers[f"{prefix}partition"] or b""), int(headers[f"{prefix}offset"] or b"")


def letters(pipeline: RidePipeline) -> Mapping[tuple[str, str], list[tuple[int, int]]]:
    """Where the dead letters are from, by group and topic, without the prefix."""
    found = defaultdict(list)
    for record in pipeline.records(RIDES.dead_letters):
        headers = {name: (value or b"").decode(errors="replace") for name, value in raw_headers(record)}
        group, topic = (
            headers[f"{PREFIX}{name}"].removeprefix(pipeline.settings.topic_prefix) for name in ("group", "topic")
        )
        found[group, topic].append(source(record, PREFIX))
    return found


def predicted(pipeline: RidePipeline) -> Mapping[str, list[tuple[int, int]]]:
    """Which rides the workers have predicted, by model."""
    intake = Intake(RIDES.predictions, LocalSchemas(RIDES.predictions.event_type), "predictions")
    rides = pipeline.settings.named("ride_started").encode()
    found = defaultdict(list)
    for record in pipeline.records("predictions"):
        # What the test has sent may say that it comes from anywhere, but not from the real topic.
        if dict(raw_headers(record)).get("source.topic") == rides:
            found[intake.read(record).model].append(source(record, "source."))
    return found


def test_every_record_is_processed_or_a_dead_letter_and_no_worker_ends(pipeline: RidePipeline) -> None:
    send(pipeline, "ride_started", Fuzz(SUBJECTS, seed=7).records(DAMAGED, GOOD))
    send(pipeline, "predictions", Fuzz(PREDICTIONS, seed=8).records(DAMAGED, []))
    workers = [pipeline.start(f"consumers.{model}", **NO_LIMITS) for model in MODELS]
    workers.append(pipeline.start("decision_service", **NO_LIMITS))
    rides = pipeline.records("ride_started")
    poison = {
        "ride_started": refused(RIDES.subjects, rides),
        "predictions": refused(RIDES.predictions, pipeline.records("predictions")),
    }
    assert all(len(places) > DAMAGED / 2 for places in poison.values())
    expected = {(model, "ride_started"): poison["ride_started"] for model in MODELS}
    expected |= {("decision", topic): places for topic, places in poison.items()}
    total = sum(map(len, expected.values()))
    names = {event.ride_id for event in GOOD}
    pipeline.wait_for(lambda: names <= pipeline.decisions().keys(), "the decisions of the good rides")
    pipeline.wait_for(lambda: sum(map(len, letters(pipeline).values())) >= total, f"{total} dead letters")
    for worker in workers:
        pipeline.stop(worker)

    assert {at: Counter(places) for at, places in letters(pipeline).items()} == {
        at: Counter(places) for at, places in expected.items()
    }
    everything = Counter((record.partition(), record.offset()) for record in rides)
    made = predicted(pipeline)
    for model in MODELS:
        assert Counter(made[model]) + Counter(poison["ride_started"]) == everything
    decisions = {name: found for name, found in pipeline.decisions().items() if name in names}
    assert all(found[-1].complete for found in decisions.values())
    assert all([made.revision for made in found] == [*range(len(found))] for found in decisions.values())
