"""Reads what a run has left on the broker, and says what it should be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from braidstream.avro import LocalSchemas
from braidstream.models.features import FeatureSet
from braidstream.models.loading import load_model
from braidstream.models.scorer import Scorer
from braidstream.settings import Guarantee, Settings
from braidstream.streaming.ports import Partition
from consumers.duration.features import FEATURES as DURATION
from consumers.tip.features import FEATURES as TIP
from decision_service.policy import RideDecisionSettings, ride_policy
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.faults.checker import Model, Observed, Promise
from tests.faults.reading import read_dead_letters, read_inputs, read_outputs
from tests.integration.ride_pipeline import RidePipeline

Offsets = Mapping[str, Mapping[Partition, int]]
"""By group and partition."""

_TIMEOUT = 30.0
_FEATURES: Mapping[str, FeatureSet[RideStarted]] = {"duration": DURATION, "tip": TIP}
_SCHEMAS = LocalSchemas(*(topic.event_type for topic in RIDES.topics))


def promised(
    pipeline: RidePipeline,
    models: Path,
    guarantee: Guarantee,
    expected: list[tuple[int, tuple[str, ...]]],
    deadline: float,
    *,
    paused: bool = False,
) -> Promise:
    """What the ride pipeline with the models of this folder promises; `deadline` is in seconds."""
    scorers = {name: Scorer(load_model(str(models / name)), features) for name, features in _FEATURES.items()}
    return Promise(
        guarantee=guarantee,
        models={name: Model(scorer.model.version, scorer) for name, scorer in scorers.items()},
        expected=expected,
        policy=ride_policy(RideDecisionSettings()),
        deadline=round(deadline * 1000),
        prefix=pipeline.settings.topic_prefix,
        paused=paused,
    )


def observed(
    pipeline: RidePipeline,
    promise: Promise,
    *,
    acknowledged: Collection[str] = (),
    seen: Mapping[tuple[int, int], int] = MappingProxyType({}),
) -> Observed:
    """Everything that is in the pipeline's topics, and the offsets of its groups; without a registry."""

    def inputs(topic: Any) -> Any:
        return read_inputs(topic, _SCHEMAS, pipeline.records(topic.name))

    def outputs(topic: Any) -> Any:
        return read_outputs(topic, _SCHEMAS, pipeline.records(topic.name))

    with offsets_of(pipeline.settings, promise.readers) as committed:
        offsets = committed()
    return Observed(
        rides=inputs(RIDES.subjects),
        predictions=inputs(RIDES.predictions),
        decisions=outputs(RIDES.decisions),
        states=outputs(RIDES.decision_state),
        dead_letters=read_dead_letters(pipeline.records(RIDES.dead_letters)),
        committed=offsets,
        acknowledged=acknowledged,
        seen=seen,
    )


@contextmanager
def offsets_of(settings: Settings, groups: Mapping[str, Sequence[str]]) -> Iterator[Callable[[], Offsets]]:
    """Asks for the offsets that groups have committed, given the topics that each reads."""
    # An AdminClient that asks dies (SIGSEGV) while the broker has no coordinator yet:
    # https://github.com/confluentinc/confluent-kafka-javascript/issues/374
    config = {**settings.kafka, "isolation.level": "read_uncommitted"}
    asking = {group: Consumer({**config, "group.id": group}) for group in groups}
    numbers = range(settings.partitions)

    def offsets() -> Offsets:
        found: dict[str, dict[Partition, int]] = {}
        for group, topics in groups.items():
            partitions = [TopicPartition(topic, number) for topic in topics for number in numbers]
            told = asking[group].committed(partitions, timeout=_TIMEOUT)
            found[group] = {Partition(tp.topic, tp.partition): tp.offset for tp in told if tp.offset >= 0}
        return found

    try:
        yield offsets
    finally:
        for consumer in asking.values():
            consumer.close()
