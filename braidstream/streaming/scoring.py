"""Scoring: a model's values for a batch of events become predictions."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b

from braidstream.avro import E
from braidstream.pipeline import Pipeline
from braidstream.streaming.processor import Handler, Output
from schemas.prediction import Prediction

Predict = Callable[[Sequence[E]], Sequence[float]]
"""A scoring function: one value for each event, in order."""


def prediction_id(subject_id: str, model: str, model_version: str) -> str:
    """The same for the same subject, model and version: a version-8 UUID (RFC 9562) of their BLAKE2b hash."""
    digest = bytearray(blake2b("\0".join((subject_id, model, model_version)).encode(), digest_size=16).digest())
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(digest)))


def predictions_of(
    pipeline: Pipeline[E], predict: Predict[E], model: str, model_version: str, clock: Callable[[], int]
) -> Handler[E]:
    """The handler of a scoring function; `clock` gives milliseconds since 1970, UTC."""

    def handle(events: Sequence[E]) -> Sequence[Sequence[Output]]:
        now = datetime.fromtimestamp(clock() / 1000, UTC)
        subjects = [pipeline.subjects.key_of(event) for event in events]
        return [
            (
                Output(
                    pipeline.predictions,
                    Prediction(
                        prediction_id=prediction_id(subject, model, model_version),
                        subject_id=subject,
                        model=model,
                        model_version=model_version,
                        value=value,
                        predicted_at=now,
                    ),
                ),
            )
            for subject, value in zip(subjects, predict(events), strict=True)
        ]

    return handle
