"""From a fitted estimator to a model folder, with an ONNX export that was compared with the estimator."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
import structlog
from numpy.typing import NDArray
from skl2onnx import convert_sklearn
from skl2onnx.common._registration import get_converter
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.utils import get_tags

from braidstream.models.features import FeatureSet, Matrix
from braidstream.models.folder import ONNX, SKOPS, DataSummary, Feature, ModelCard, write_folder
from braidstream.models.predictors import OnnxPredictor, SklearnPredictor

TOLERANCE = 1e-5
"""By how much an export may differ from its estimator, as a share of the largest prediction: single precision."""

_PROBES = 500
_LIBRARIES = ("numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx", "skops")


class NotExportable(Exception):
    """The estimator has no ONNX export that predicts what it predicts; the message says why."""


def save(
    folder: Path,
    *,
    name: str,
    estimator: Any,
    features: FeatureSet[Any],
    rows: Matrix,
    schema_id: int,
    metrics: Mapping[str, float],
    data: DataSummary,
    replace: bool = False,
) -> ModelCard:
    """Write a fitted regressor as a model folder, and return its card.

    The export is compared with the estimator on `rows`; when it differs it is not written, and the estimator itself
    is served instead. The version follows from what is served, so the same data and code give the same version.
    Raises `SettingsError` as `write_folder` does.
    """
    probes = _probes(estimator, rows)
    expected = SklearnPredictor(estimator)(probes)
    files = {SKOPS: skops.io.dumps(estimator)}
    not_exported = None
    try:
        files[ONNX] = export(estimator, name, probes, expected)
    except NotExportable as error:
        not_exported = str(error)
        structlog.get_logger().warning("not exported to ONNX, served by scikit-learn", model=name, reason=not_exported)
    card = ModelCard(
        name=name,
        # A skops file differs from one writing to the next, even of the same estimator: its predictions do not.
        version=_sha256(files.get(ONNX, expected.tobytes()))[:12],
        features=tuple(Feature(name=feature) for feature in features.names),
        schema_id=schema_id,
        metrics=metrics,
        data=data,
        libraries={library: version(library) for library in _LIBRARIES},
        served_by="onnx" if ONNX in files else "scikit-learn",
        not_exported=not_exported,
        files={file: _sha256(content) for file, content in files.items()},
    )
    write_folder(folder, card, files, replace=replace)
    return card


def export(estimator: Any, name: str, rows: Matrix, expected: NDArray[np.float64]) -> bytes:
    """The estimator as ONNX; raises `NotExportable` unless it predicts `expected` for every one of `rows`."""
    try:
        model: bytes = convert_sklearn(
            estimator,
            name=name,
            initial_types=[("features", FloatTensorType([None, rows.shape[1]]))],
            custom_conversion_functions={HistGradientBoostingRegressor: _convert_hist_gradient_boosting},
        ).SerializeToString()
        exported = OnnxPredictor(model)(rows)
    except Exception as error:  # skl2onnx and onnxruntime raise dozens of kinds
        raise NotExportable(f"{type(error).__name__}: {str(error).strip().splitlines()[0]:.200}") from error
    if exported.shape != expected.shape:
        raise NotExportable(f"the export gives {exported.size} values for {len(rows)} rows")
    difference = np.abs(exported - expected)
    differing = ~(difference <= TOLERANCE * np.abs(expected).max())
    if differing.any():
        raise NotExportable(
            f"the export differs from the estimator on {differing.sum()} of {len(rows)} rows, by up to "
            f"{difference.max():.3g}"
        )
    return model


class _PlainIntegers:
    """A skl2onnx container that also takes NumPy integers and booleans in node attributes, which onnx refuses."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, *args: Any, **attributes: Any) -> None:
        self._container.add_node(*args, **{name: _plain(value) for name, value in attributes.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(item, int | np.integer | np.bool_) for item in value):
        return [int(item) for item in value]
    return value


def _convert_hist_gradient_boosting(scope: Any, node: Any, container: Any) -> None:
    node = copy.copy(node)
    node.raw_operator = _with_single_thresholds(node.raw_operator)
    get_converter("SklearnHistGradientBoostingRegressor")(scope, node, _PlainIntegers(container))


def _with_single_thresholds(estimator: Any) -> Any:
    """The same trees with thresholds rounded down to single precision: every single-precision row goes the same way.

    Rounded to the nearest, as skl2onnx does, a threshold can end on a value above it, and that value on the other side.
    """
    estimator = copy.deepcopy(estimator)
    for tree in itertools.chain.from_iterable(estimator._predictors):
        exact = tree.nodes["num_threshold"]
        nearest = exact.astype(np.float32)
        tree.nodes["num_threshold"] = np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    return estimator


def _probes(estimator: Any, rows: Matrix) -> Matrix:
    """The rows, and if the estimator takes missing values, some of them again with each feature missing in turn."""
    if not get_tags(estimator).input_tags.allow_nan:
        return rows
    parts = [rows]
    for column in range(rows.shape[1]):
        part = rows[:_PROBES].copy()
        part[:, column] = np.nan
        parts.append(part)
    return np.concatenate(parts)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
