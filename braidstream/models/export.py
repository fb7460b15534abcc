"""From a fitted estimator to a model folder, with an ONNX export that was compared with the estimator."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
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
from sklearn.base import BaseEstimator, is_classifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.utils import get_tags

from braidstream.columns import Array
from braidstream.errors import SettingsError
from braidstream.models.features import FeatureSet, Matrix
from braidstream.models.folder import ONNX, SKOPS, DataSummary, ModelCard, write_folder
from braidstream.models.loading import read_estimator
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
    trusted: Sequence[str] = (),
    replace: bool = False,
) -> ModelCard:
    """Write a fitted regressor, or a classifier of classes 0 and 1, as a model folder, and return its card.

    The export is compared with the estimator on `rows`; when it differs it is not written, and the estimator itself
    is served instead, if what is read back from its file predicts the same; `trusted` is as for `load_model`. Text has
    no export. The version follows from what is served, so the same data and code give the same version. Raises
    `SettingsError` when the estimator cannot be kept, and as `write_folder` does.
    """
    probes = _probes(estimator, rows)
    expected = SklearnPredictor(estimator)(probes)
    files = {SKOPS: _kept(name, estimator)}
    not_exported = None
    try:
        files[ONNX] = export(estimator, name, probes, expected)
    except NotExportable as error:
        not_exported = str(error)
        _check_kept(name, files[SKOPS], trusted, probes, expected)
        log = structlog.get_logger()
        # Of text and of types of one's own there is none to be had.
        tell = log.info if features.kind == "text" or trusted else log.warning
        tell("not exported to ONNX, served by scikit-learn", model=name, reason=not_exported)
    card = ModelCard(
        name=name,
        # A skops file differs from one writing to the next, even of the same estimator: its predictions do not.
        version=_sha256(files.get(ONNX, expected.tobytes()))[:12],
        features=features.described,
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
    if rows.dtype == object:
        raise NotExportable("ONNX splits text into words by other rules than scikit-learn does")
    try:
        model: bytes = convert_sklearn(
            estimator,
            name=name,
            initial_types=[("features", FloatTensorType([None, rows.shape[1]]))],
            custom_conversion_functions={
                HistGradientBoostingClassifier: partial(_convert_trees, "SklearnHistGradientBoostingClassifier"),
                HistGradientBoostingRegressor: partial(_convert_trees, "SklearnHistGradientBoostingRegressor"),
            },
            # Without it, the probabilities would be one dict a row.
            options={id(estimator): {"zipmap": False}} if is_classifier(estimator) else None,
        ).SerializeToString()
        exported = OnnxPredictor(model)(rows)
    except Exception as error:  # skl2onnx and onnxruntime raise dozens of kinds
        raise NotExportable(f"{type(error).__name__}: {str(error).strip().splitlines()[0]:.200}") from error
    if exported.shape != expected.shape:
        raise NotExportable(f"the export gives {exported.size} values for {len(rows)} rows")
    if difference := _difference(exported, expected):
        raise NotExportable(f"the export differs from the estimator {difference}")
    return model


def _kept(name: str, estimator: Any) -> bytes:
    for vectorizer in _vectorizers(estimator, set()):
        # With max_features or min_df they are NumPy's, each a file to skops: 30 s instead of 4 s for 20,000 words.
        vectorizer.vocabulary_ = {term: int(index) for term, index in vectorizer.vocabulary_.items()}
    try:
        content: bytes = skops.io.dumps(estimator)
    except TypeError as error:  # skops's own among them
        raise SettingsError(f"{name} cannot be kept in a file without pickle: {error}") from error
    return content


def _vectorizers(part: Any, seen: set[int]) -> Iterator[CountVectorizer]:
    """The fitted vectorizers that an estimator is made of."""
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, CountVectorizer) and hasattr(part, "vocabulary_"):
        yield part
    elif isinstance(part, dict):
        part = list(part.values())
    elif isinstance(part, BaseEstimator) or type(part).__module__.startswith("sklearn."):
        part = list(getattr(part, "__dict__", {}).values())
    if isinstance(part, list | tuple):
        for inner in part:
            yield from _vectorizers(inner, seen)


def _check_kept(
    name: str, content: bytes, trusted: Sequence[str], probes: Matrix, expected: NDArray[np.float64]
) -> None:
    """Raise `SettingsError` unless a worker can read the estimator back, and it predicts the same then."""
    homeless = [kind for kind in skops.io.get_untrusted_types(data=content) if kind.startswith("__main__.")]
    if homeless:
        raise SettingsError(
            f"{name} is made of {', '.join(homeless)}, which no other program can import: define it in a module"
        )
    again = SklearnPredictor(read_estimator(name, content, trusted))(probes)
    if difference := _difference(again, expected):
        raise SettingsError(f"{name}, read back from {SKOPS}, differs from the estimator {difference}")


def _difference(values: NDArray[np.float64], expected: NDArray[np.float64]) -> str | None:
    """On how many rows the values are not the expected ones, and by how much; None when all are."""
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    differing = ~np.isclose(values, expected, rtol=0, atol=TOLERANCE * largest, equal_nan=True)
    if not differing.any():
        return None
    by = np.abs(values[differing] - expected[differing]).max()
    return f"on {differing.sum()} of {len(expected)} rows, by up to {by:.3g}"


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


def _convert_trees(converter: str, scope: Any, node: Any, container: Any) -> None:
    node = copy.copy(node)
    node.raw_operator = _with_single_thresholds(node.raw_operator)
    get_converter(converter)(scope, node, _PlainIntegers(container))


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
    if rows.dtype == object or not get_tags(estimator).input_tags.allow_nan:
        return rows
    parts: list[Array] = [rows]
    for column in range(rows.shape[1]):
        part = rows[:_PROBES].copy()
        part[:, column] = np.nan
        parts.append(part)
    probes: Matrix = np.concatenate(parts)
    return probes


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
