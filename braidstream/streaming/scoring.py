"""Scoring: a model's values for a batch of events become predictions."""

from __future__ import annotations

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
    h = blake2b("\0".join((subject_id, model, model_version)).encode(), digest_size=16).hexdigest()
    return f"{h[:8]}-{h[8:12]}-8{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"


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
