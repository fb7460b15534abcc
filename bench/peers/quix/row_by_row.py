"""Quix Streams: `ride_started` in, `predictions` out, one ride at a time."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import fastavro
import numpy as np
from numpy.typing import NDArray
from quixstreams import Application
from quixstreams.models import Deserializer, Serializer
from threadpoolctl import threadpool_limits

SCHEMAS = Path(__file__).parents[3] / "schemas"
HEADER = struct.Struct(">BI")
MAX_MILES = 100.0
TRUSTED_TYPES = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]

Ride: TypeAlias = dict[str, Any]
Row: TypeAlias = NDArray[np.float32]
Predict: TypeAlias = Callable[[Row], Any]


def load_schema(path: Path) -> Any:
    """A schema, parsed for fastavro."""
    return fastavro.parse_schema(json.loads(path.read_text()))


class RideDeserializer(Deserializer):
    """Reads a ride from Avro behind the five bytes of Confluent's wire format."""

    def __init__(self) -> None:
        self._schema = load_schema(SCHEMAS / "ride_started.v1.avsc")

    def __call__(self, value: bytes, ctx: object) -> Any:
        """The ride, `pickup_at` as a naive datetime."""
        return fastavro.schemaless_reader(io.BytesIO(value[HEADER.size :]), self._schema, None)


class PredictionSerializer(Serializer):
    """Writes a prediction as Avro behind the five bytes of Confluent's wire format."""

    def __init__(self, schema_id: int) -> None:
        self._schema = load_schema(SCHEMAS / "prediction.v1.avsc")
        self._header = HEADER.pack(0, schema_id)

    def __call__(self, value: dict[str, Any], ctx: object) -> bytes:
        """The record's value."""
        buffer = io.BytesIO()
        buffer.write(self._header)
        fastavro.schemaless_writer(buffer, self._schema, value)
        return buffer.getvalue()


def features(ride: Ride) -> Row:
    """One row of what the duration model takes, as in `consumers/ride_features.py`."""
    miles = ride["trip_distance"]
    if miles is None or miles <= 0 or miles > MAX_MILES:
        miles = np.nan
    pickup_at, pickup, dropoff = ride["pickup_at"], ride["pickup_zone"], ride["dropoff_zone"]
    return np.array([[pickup, dropoff, pickup == dropoff, miles, pickup_at.hour, pickup_at.weekday()]], np.float32)


def prediction_id(*parts: str) -> str:
    """The same for the same subject, model and version: the project's own formula, a UUID of the BLAKE2b hash."""
    h = hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
    return f"{h[:8]}-{h[8:12]}-8{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"


def load_onnx(folder: Path) -> Predict:
    """The model as ONNX Runtime computes it, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda row: session.run(None, {name: row})[0][0, 0]


def load_scikit_learn(folder: Path) -> Predict:
    """The model as scikit-learn computes it, on one thread."""
    import skops.io

    estimator = skops.io.load(folder / "model.skops", trusted=TRUSTED_TYPES)
    threadpool_limits(1)
    return lambda row: estimator.predict(row)[0]


LOADERS = {"onnx": load_onnx, "scikit-learn": load_scikit_learn}


def scorer(folder: Path, predict: Predict) -> Callable[[Ride], dict[str, Any]]:
    """The function from a ride to its prediction."""
    card = json.loads((folder / "model.json").read_text())
    name, version = card["name"], card["version"]

    def score(ride: Ride) -> dict[str, Any]:
        return {
            "prediction_id": prediction_id(ride["ride_id"], name, version),
            "subject_id": ride["ride_id"],
            "model": name,
            "model_version": version,
            "value": float(predict(features(ride))),
            "predicted_at": int(time.time() * 1000),
        }

    return score


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "input", "output", "group"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--guarantee", required=True, choices=["exactly_once", "at_least_once"])
    parser.add_argument("--model", required=True, type=Path, help="folder of the duration model")
    parser.add_argument("--engine", required=True, choices=list(LOADERS))
    parser.add_argument("--schema-id", required=True, type=int, help="schema id that predictions are written with")
    parser.add_argument("--commit-interval", type=float, default=5.0, help="seconds; Quix Streams' default is 5")
    return parser.parse_args()


def main() -> None:
    """Score until SIGTERM."""
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="quix-") as state:
        app = Application(
            args.bootstrap,
            consumer_group=args.group,
            auto_offset_reset="earliest",
            commit_interval=args.commit_interval,
            processing_guarantee=args.guarantee.replace("_", "-"),
            state_dir=state,
            loglevel="WARNING",
        )
        rides = app.topic(args.input, value_deserializer=RideDeserializer())
        predictions = app.topic(args.output, value_serializer=PredictionSerializer(args.schema_id))
        score = scorer(args.model, LOADERS[args.engine](args.model))
        app.dataframe(rides).apply(score).to_topic(predictions)
        app.run()


if __name__ == "__main__":
    main()
