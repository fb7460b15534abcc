"""Training that knows no pipeline: fit, measure on the latest rows, fit on all of them, save."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier, is_regressor
from threadpoolctl import threadpool_limits

from braidstream.errors import SettingsError, message_of
from braidstream.models.export import save
from braidstream.models.features import FeatureSet, Matrix, single_precision
from braidstream.models.folder import DataSummary, ModelCard
from braidstream.models.measures import errors, probability_measures
from braidstream.models.predictors import SklearnPredictor

MIN_ROWS = 10
"""Fewer rows than this are refused."""


@dataclass(frozen=True)
class TrainingData:
    """Rows in the order of time: features, the value to learn, the times of the first and the last row.

    The value is any number for a regressor, and 0 or 1 for a classifier.
    """

    matrix: Matrix
    target: NDArray[np.float64]
    earliest: datetime | None = None
    latest: datetime | None = None

    def summary(self) -> DataSummary:
        """What `model.json` keeps of the data."""
        digest = hashlib.sha256(_bytes(self.matrix))
        digest.update(self.target.tobytes())
        return DataSummary(rows=len(self.target), sha256=digest.hexdigest(), earliest=self.earliest, latest=self.latest)


def train(
    name: str,
    estimator: Any,
    features: FeatureSet[Any],
    data: TrainingData,
    folder: Path,
    *,
    schema_id: int,
    target_limit: float = float("inf"),
    thresholds: Mapping[str, float] | None = None,
    held_out: float = 0.2,
    trusted: Sequence[str] = (),
    replace: bool = False,
) -> ModelCard:
    """Fit a regressor or a classifier on all the data and save it, with its measures on the held-out rows.

    The measures are those of a first fit that did not see the latest share `held_out` of the rows: for a regressor
    those of `errors`; for a classifier, which predicts the probability of class 1, those of `probability_measures` with
    `thresholds`, by name. A target above `target_limit` is learned as if it were `target_limit`; the errors are always
    measured against the target itself. `trusted` is as for `load_model`.

    Raises `SettingsError` when the estimator is neither, when the rows are too few or do not fit it, when it fails to
    learn from them, and as `save` does.
    """
    classifies = _classifies(name, estimator)
    _check_rows(name, features, data)
    split = len(data.target) - max(1, round(len(data.target) * held_out))
    if classifies:
        _check_classes(name, data.target, split)
    _check_options(name, classifies, target_limit, thresholds or {})
    matrix = single_precision(data.matrix)
    learned = data.target.astype(np.int64) if classifies else np.minimum(data.target, target_limit)
    # On two cores one thread is as fast as all of them on a quiet machine, and ten times as fast on a busy one.
    with threadpool_limits(limits=1), _failures_named(name, features, matrix, split):
        early = clone(estimator).fit(matrix[:split], learned[:split])
        final = clone(estimator).fit(matrix, learned)
        predicted = SklearnPredictor(early)(matrix[split:])
    actual = data.target[split:]
    return save(
        folder,
        name=name,
        estimator=final,
        features=features,
        rows=matrix[split:],
        schema_id=schema_id,
        metrics=probability_measures(actual, predicted, thresholds or {}) if classifies else errors(actual, predicted),
        data=data.summary(),
        trusted=trusted,
        replace=replace,
    )


@contextmanager
def _failures_named(name: str, features: FeatureSet[Any], matrix: Matrix, split: int) -> Iterator[None]:
    """Raise a `SettingsError` for what the estimator raises; a feature without any value is the likely cause."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = next(iter(message_of(error).splitlines()), "").rstrip(".")
        for rows, which in ((matrix, "all"), (matrix[:split], f"the earlier {split}")):
            if empty := [feature for feature, column in zip(features.names, rows.T, strict=True) if _is_empty(column)]:
                reason += f"; {', '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty in {which} rows"
                break
        raise SettingsError(f"{name} cannot be trained: {type(error).__name__}: {reason}") from error


def _is_empty(column: NDArray[Any]) -> bool:
    return bool((column == "").all() if column.dtype == object else np.isnan(column).all())


def _bytes(matrix: Matrix) -> bytes:
    if matrix.dtype == object:
        return json.dumps(matrix.tolist()).encode()
    return np.ascontiguousarray(matrix).tobytes()


def _classifies(name: str, estimator: Any) -> bool:
    """Whether it is a classifier, and not a regressor; raises `SettingsError` when no number can be had of it."""
    if is_regressor(estimator):
        return False
    if not is_classifier(estimator):
        raise SettingsError(f"{name} cannot be trained: {estimator} is neither a regressor nor a classifier")
    if not hasattr(estimator, "predict_proba"):
        raise SettingsError(
            f"{name} cannot be trained: {estimator} has no predict_proba, and a classifier predicts the probability of "
            "class 1: put it into a CalibratedClassifierCV"
        )
    return True


def _check_rows(name: str, features: FeatureSet[Any], data: TrainingData) -> None:
    rows = len(data.target)
    if rows < MIN_ROWS:
        raise SettingsError(f"{rows} rows are too few to train {name}: at least {MIN_ROWS} are needed")
    if data.target.ndim != 1:
        raise SettingsError(f"{name} has to learn one number a row: the target is of shape {data.target.shape}")
    if data.matrix.shape != (rows, len(features.names)):
        raise SettingsError(
            f"{name} has {rows} targets and {len(features.names)} features, and a matrix of shape {data.matrix.shape}"
        )
    if (data.matrix.dtype == object) != (features.kind == "text"):
        raise SettingsError(f"{name} has features of kind {features.kind!r}, and a matrix of {data.matrix.dtype}")
    if features.kind == "text" and (others := {type(text).__name__ for text in data.matrix.flat} - {"str"}):
        raise SettingsError(f"{name} has features of kind 'text', and among them values of {', '.join(sorted(others))}")


def _check_classes(name: str, target: NDArray[np.float64], split: int) -> None:
    classes = np.unique(target).tolist()
    if classes != [0, 1]:
        listed = ", ".join(f"{value:g}" for value in classes[:5])
        raise SettingsError(f"{name} is a classifier, whose targets have to be 0 and 1; here they are {listed}")
    if len(np.unique(target[:split])) < 2 or not target[split:].any():
        raise SettingsError(
            f"{name} cannot be measured: the earlier {split} rows have to hold both classes, and the later "
            f"{len(target) - split} class 1: give more rows, or another share held out"
        )


def _check_options(name: str, classifies: bool, target_limit: float, thresholds: Mapping[str, float]) -> None:
    if classifies and target_limit != float("inf"):
        raise SettingsError(f"{name} is a classifier: target_limit is for regressors")
    if thresholds and not classifies:
        raise SettingsError(f"{name} is a regressor: thresholds are for classifiers")
    if beyond := [threshold for threshold in thresholds.values() if not 0 <= threshold <= 1]:
        raise SettingsError(f"the thresholds of {name} are probabilities, from 0 to 1, and {beyond[0]} is none")
