"""Scoring: a model's values for a batch of events become predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b

import numpy as np
from numpy.typing import ArrayLike, NDArray

from braidstream.avro import Codec, E, long_bytes, string_bytes
from braidstream.errors import FatalError
from braidstream.events import Events
from braidstream.streaming.encoding import head
from braidstream.streaming.handler import Handler, Result
from schemas.prediction import Prediction

Predict = Callable[[Events[E]], Sequence[float] | NDArray[np.float64]]
"""A scoring function: one value for each event, in order."""

_HEX = np.array([f"{byte:02x}".encode() for byte in range(256)], "S2").view(np.uint16)
_ID_LENGTH = 36


def prediction_ids(subject_ids: Sequence[bytes], model: str, model_version: str) -> NDArray[np.uint8]:
    """The ids of one model's predictions for these subjects, as n rows of 36 ASCII characters.

    The same for the same subject, model and version: each a version-8 UUID (RFC 9562) of their BLAKE2b hash.
    """
    tail = f"\0{model}\0{model_version}".encode()
    digests = b"".join([blake2b(subject + tail, digest_size=16).digest() for subject in subject_ids])
    octets = np.frombuffer(digests, np.uint8).reshape(-1, 16).copy()
    octets[:, 6] = octets[:, 6] & 0x0F | 0x80
    octets[:, 8] = octets[:, 8] & 0x3F | 0x80
    digits = _HEX[octets].view(np.uint8)
    ids = np.full((len(subject_ids), _ID_LENGTH), ord("-"), np.uint8)
    for start, end, dashes in ((0, 8, 0), (8, 12, 1), (12, 16, 2), (16, 20, 3), (20, 32, 4)):
        ids[:, start + dashes : end + dashes] = digits[:, start:end]
    return ids


class PredictionWriter:
    """Writes the predictions of one model in the wire format.

    Only the fields that differ are encoded for each; `header` is `prediction_head`'s, which also checks that the layout
    is the latest schema's.
    """

    def __init__(self, header: bytes, model: str, model_version: str) -> None:
        if not model:
            raise ValueError("a model needs a name")
        self._model = model
        self._version = model_version
        self._head = header + long_bytes(_ID_LENGTH)
        self._names = string_bytes(model.encode()) + string_bytes(model_version.encode())

    def encode(self, subject_ids: Sequence[bytes], values: ArrayLike, predicted_at: int) -> list[bytes]:
        """The records' values; `predicted_at` is in milliseconds since 1970, UTC.

        Raises `ValueError` when a value is not finite, or a subject is empty; and `FatalError` when there is not one
        value for each subject: then nobody knows which is whose.
        """
        numbers = np.asarray(values, "<f8", order="C")
        if numbers.shape != (len(subject_ids),):
            raise FatalError(
                f"model {self._model} {self._version} returned values of shape {numbers.shape} for {len(subject_ids)} "
                "events: mend the model, or its features; it has to give one value for each event, in order"
            )
        if not (finite := np.isfinite(numbers)).all():
            row = int(np.argmin(finite))
            raise self.not_finite(subject_ids[row], numbers[row])
        if not all(subject_ids):
            raise ValueError("a prediction needs a subject: its id is empty")
        ids = _rows(prediction_ids(subject_ids, self._model, self._version))
        doubles = _rows(numbers.view(np.uint8).reshape(-1, 8))
        head, names, time = self._head, self._names, long_bytes(predicted_at)
        return [
            b"".join((head, one, string_bytes(subject), names, double, time))
            for one, subject, double in zip(ids, subject_ids, doubles, strict=True)
        ]

    def not_finite(self, subject_id: bytes, value: float) -> ValueError:
        """Why there is no prediction of this value."""
        return ValueError(f"model {self._model} {self._version} predicts {value} for {subject_id!r:.80}")


def prediction_head(codec: Codec[Prediction]) -> bytes:
    """What stands before the body of every prediction; raises `FatalError` when the codec writes another schema."""
    subject, model, version = "subject", "model", "1"
    example = Prediction(
        prediction_id=prediction_ids([subject.encode()], model, version).tobytes().decode(),
        subject_id=subject,
        model=model,
        model_version=version,
        value=0.5,
        predicted_at=datetime.fromtimestamp(1, UTC),
    )
    [body] = PredictionWriter(b"", model, version).encode([subject.encode()], [example.value], 1000)
    return head(codec.encode(example), body)


def _rows(matrix: NDArray[np.uint8]) -> list[bytes]:
    content, width = matrix.tobytes(), matrix.shape[1]
    return [content[start : start + width] for start in range(0, len(content), width)]


def predictions_of(predict: Predict[E], topic: str, writer: PredictionWriter, clock: Callable[[], int]) -> Handler[E]:
    """The handler of a scoring function, for the topic of this name; `clock` gives milliseconds since 1970, UTC.

    An event for which the model gives no finite value gets a `ValueError` for its result.
    """

    def handle(events: Events[E]) -> Sequence[Result]:
        subjects = [key.encode() for key in events.keys]
        values = np.asarray(predict(events), np.float64)
        if values.shape != (len(subjects),) or (finite := np.isfinite(values)).all():
            return write(subjects, values)
        good = iter(write([subjects[row] for row in np.flatnonzero(finite)], values[finite]))
        return [
            next(good) if is_finite else writer.not_finite(subject, value)
            for subject, value, is_finite in zip(subjects, values.tolist(), finite.tolist(), strict=True)
        ]

    def write(subjects: Sequence[bytes], values: NDArray[np.float64]) -> Sequence[Result]:
        encoded = writer.encode(subjects, values, clock())
        return [((topic, subject, value),) for subject, value in zip(subjects, encoded, strict=True)]

    return handle
