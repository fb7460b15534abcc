"""The benchmark's records: real trips, repeated under new ids, encoded without being made anew for each ride."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from braidstream.avro import Codec, LocalSchemas
from braidstream.models.loading import load_model
from braidstream.models.scorer import Scorer
from braidstream.pipelines import Topic
from consumers.duration.features import FEATURES as DURATION
from consumers.tip.features import FEATURES as TIP
from producer.sample import write_sample
from producer.trips import read_trips, rides
from rides.pipeline import RIDES
from schemas.prediction import Prediction
from schemas.ride_started import RideStarted

FEATURES = {"duration": DURATION, "tip": TIP}

_SAMPLE_ROWS = 20_000
_NO_ID = "?" * 36
_HEADER = 5
_LENGTH = bytes([2 * len(_NO_ID)])  # the length of an id as Avro writes it: zigzag
_NOW = datetime.now(UTC)


class Record(NamedTuple):
    """A record to be filled in: ride `number` of the benchmark."""

    number: int
    key: bytes
    value: bytes


def ride_id(number: int) -> str:
    """As long as the producer's ids, and begins with the number as theirs do."""
    return f"{number:08x}-0000-8000-8000-000000000000"


def ride_number(key: bytes) -> int:
    """The number of the ride that has this key."""
    return int(key[:8], 16)


@dataclass(frozen=True)
class Backlog:
    """The rides of real trips and their predictions, ready to be sent.

    `ride_tails` holds what follows the id in the record of each trip, `prediction_tails` what follows the two ids in
    the predictions of each model for it.
    """

    ride_head: bytes
    ride_tails: Sequence[bytes]
    prediction_head: bytes
    prediction_tails: Mapping[str, Sequence[bytes]]

    @classmethod
    def of(cls, trips: Path | None, models: Path) -> Backlog:
        """From the trips in this file, or from synthetic ones; predicted by the models in this folder."""
        started = _rides(trips)
        values = [_encoded(RIDES.subjects, ride.model_copy(update={"ride_id": _NO_ID})) for ride in started]
        predictions = {name: _predictions(name, models, started) for name in FEATURES}
        after_one, after_two = _HEADER + 37, _HEADER + 74
        return cls(
            values[0][:_HEADER],
            [value[after_one:] for value in values],
            next(iter(predictions.values()))[0][:_HEADER],
            {name: [value[after_two:] for value in encoded] for name, encoded in predictions.items()},
        )

    def rides(self, start: int, stop: int) -> Iterator[Record]:
        """The `ride_started` records of the rides from `start` to before `stop`."""
        head, tails, trips = self.ride_head + _LENGTH, self.ride_tails, len(self.ride_tails)
        for number in range(start, stop):
            key = ride_id(number).encode()
            yield Record(number, key, head + key + tails[number % trips])

    def predictions(self, start: int, stop: int) -> Iterator[Record]:
        """The predictions of every model for these rides, those of one ride in a row."""
        head, trips = self.prediction_head + _LENGTH, len(self.ride_tails)
        models = list(enumerate(self.prediction_tails.values()))
        for number in range(start, stop):
            key = ride_id(number).encode()
            for model, tails in models:
                own_id = b"%08x-0000-8000-8%03d-000000000000" % (number, model)
                yield Record(number, key, head + own_id + _LENGTH + key + tails[number % trips])


def _rides(trips: Path | None) -> list[RideStarted]:
    if trips is not None:
        return list(rides(read_trips([trips]).rides))
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "trips_2023-01.parquet"
        write_sample(sample, _SAMPLE_ROWS, seed=1, month="2023-01")
        return list(rides(read_trips([sample]).rides))


def _encoded(topic: Topic[Any], event: Any) -> bytes:
    codec: Codec[Any] = Codec(topic.event_type, LocalSchemas(topic.event_type), topic.name)
    return codec.encode(event)


def _predictions(name: str, models: Path, started: Sequence[RideStarted]) -> list[bytes]:
    model = load_model(str(models / name))
    values = np.array(Scorer(model, FEATURES[name])(started))
    common = {"prediction_id": _NO_ID, "subject_id": _NO_ID, "model": name, "model_version": model.version}
    return [
        _encoded(RIDES.predictions, Prediction(**common, value=value, predicted_at=_NOW)) for value in values.tolist()
    ]
