"""The work of each kind of worker, made of a pipeline's topics, the settings, and what the application brings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from braidstream.avro import Codec, E, SchemaSource
from braidstream.deciding.join import Rules, State
from braidstream.deciding.policy import Policy
from braidstream.errors import SettingsError
from braidstream.pipelines import Pipeline, Topic
from braidstream.settings import DecisionSettings, HandlerSettings, WorkerSettings
from braidstream.streaming.changelog import ChangelogReader, Restore
from braidstream.streaming.dead_letters import DeadLetterLimit
from braidstream.streaming.decisions import DecisionProcessor, DecisionTopics
from braidstream.streaming.fence import Fence
from braidstream.streaming.handler import Handle, Handler, Isolation, Out, writing
from braidstream.streaming.intake import Intake
from braidstream.streaming.once import OnceProcessor
from braidstream.streaming.ports import LogEnds
from braidstream.streaming.processor import DeadLetters, HandlerProcessor
from braidstream.streaming.scoring import Predict, PredictionWriter, prediction_head, predictions_of
from braidstream.streaming.state_codecs import HandledCodec, StateCodec
from schemas.handled import Handled


def scoring_processor(
    pipeline: Pipeline[E],
    settings: WorkerSettings,
    schemas: SchemaSource,
    group: str,
    predict: Predict[E],
    *,
    model: tuple[str, str],
    clock: Callable[[], int],
) -> HandlerProcessor[E]:
    """The work of the worker of a model, given by its name and version."""
    predictions = settings.named(pipeline.predictions.name)
    codec = Codec(pipeline.predictions.event_type, schemas, predictions)
    handle = predictions_of(predict, predictions, PredictionWriter(prediction_head(codec), *model), clock)
    return _handling(pipeline, settings, schemas, group, handle)


@dataclass(frozen=True)
class StateBroker:
    """What a worker that keeps state needs besides its inbox; the clock is in milliseconds since 1970, UTC."""

    ends: LogEnds
    make_reader: Callable[[], ChangelogReader]
    clock: Callable[[], int]


def decision_processor(
    pipeline: Pipeline[E],
    settings: DecisionSettings,
    schemas: SchemaSource,
    group: str,
    policy: Policy[E],
    *,
    broker: StateBroker,
) -> DecisionProcessor[E]:
    """The work of a decision service."""
    subjects = Intake(pipeline.subjects, schemas, settings.named(pipeline.subjects.name))
    decisions, state = settings.named(pipeline.decisions.name), settings.named(pipeline.decision_state.name)
    parts = DecisionTopics(
        subjects=subjects,
        predictions=Intake(pipeline.predictions, schemas, settings.named(pipeline.predictions.name)),
        decisions=decisions,
        decision_codec=Codec(pipeline.decisions.event_type, schemas, decisions),
        state=state,
        state_codec=StateCodec(pipeline.decision_state.event_type, schemas, state),
    )
    rules = Rules(
        policy=policy,
        expected=settings.expected_models,
        deadline=round(settings.decision_deadline * 1000),
        remember=round(settings.remember * 1000),
        read_event=subjects.decode,
    )

    def make_restore(take: Callable[[int, str, State | None], None]) -> Restore[State]:
        return Restore(state, broker.make_reader, broker.ends, parts.state_codec.decode, take)

    return DecisionProcessor(
        parts,
        rules,
        _dead_letters(pipeline, settings, group),
        Fence(broker.ends),
        make_restore,
        max_open=settings.max_open,
        max_remembered=settings.max_remembered,
        grace=round(settings.deadline_grace * 1000),
        clock=broker.clock,
    )


def handler_processor(
    pipeline: Pipeline[E],
    settings: HandlerSettings,
    schemas: SchemaSource,
    group: str,
    handle: Handle[E, Out],
    *,
    writes: Topic[Out],
    once: Topic[Handled] | None,
    broker: StateBroker,
) -> HandlerProcessor[E] | OnceProcessor[E]:
    """The work of a consumer with a handler of its own; raises `SettingsError` as `run_handler` does."""
    _check_handler(pipeline, settings, writes, once)
    output = settings.named(writes.name)
    handler = writing(handle, writes, output, Codec(writes.event_type, schemas, output))
    processor = _handling(pipeline, settings, schemas, group, handler)
    if once is None:
        return processor
    state = settings.named(once.name)
    codec = HandledCodec(once.event_type, schemas, state)

    def make_restore(take: Callable[[int, str, int | None], None]) -> Restore[int]:
        return Restore(state, broker.make_reader, broker.ends, codec.decode, take)

    return OnceProcessor(
        processor,
        state,
        codec,
        make_restore,
        remember=round(settings.remember * 1000),
        max_remembered=settings.max_remembered,
        clock=broker.clock,
    )


def _check_handler(
    pipeline: Pipeline[Any], settings: HandlerSettings, writes: Topic[Any], once: Topic[Handled] | None
) -> None:
    if writes not in (pipeline.predictions, *pipeline.others):
        raise SettingsError(
            f"a handler writes to {writes.name}, which is none of the pipeline's topics for that: name it in its others"
        )
    if once is None:
        if unused := settings.model_fields_set & (HandlerSettings.model_fields.keys() - WorkerSettings.model_fields):
            raise SettingsError(f"{min(unused).upper()} does nothing: this consumer does not handle a subject once")
    elif once not in pipeline.others or once == writes:
        raise SettingsError(
            f"what was handled is kept in {once.name}, which is none of the pipeline's other topics: make one with "
            "changelog(), for this consumer alone, and name it in the pipeline's others"
        )


def _handling(
    pipeline: Pipeline[E], settings: WorkerSettings, schemas: SchemaSource, group: str, handle: Handler[E]
) -> HandlerProcessor[E]:
    return HandlerProcessor(
        Intake(pipeline.subjects, schemas, settings.named(pipeline.subjects.name)),
        Isolation(handle, settings.dead_letter_run),
        _dead_letters(pipeline, settings, group),
    )


def _dead_letters(pipeline: Pipeline[Any], settings: WorkerSettings, group: str) -> DeadLetters:
    make_limit = partial(DeadLetterLimit, run=settings.dead_letter_run, share=settings.dead_letter_share)
    return DeadLetters(settings.named(pipeline.dead_letters), group, make_limit)
