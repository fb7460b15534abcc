"""Training that knows no pipeline: fit, measure on the latest rows, fit on all of them, save."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from braidstream.errors import SettingsError
from braidstream.models.export import save
from braidstream.models.features import FeatureSet, Matrix
from braidstream.models.folder import DataSummary, ModelCard
from braidstream.models.predictors import SklearnPredictor

MIN_ROWS = 10
"""Fewer rows than this are refused."""


@dataclass(frozen=True)
class TrainingData:
    """Rows in the order of time: features, the value to learn, and when the first and the last row are from."""

    matrix: Matrix
    target: NDArray[np.float64]
    earliest: datetime
    latest: datetime

    def summary(self) -> DataSummary:
        """What `model.json` keeps of the data."""
        digest = hashlib.sha256(np.ascontiguousarray(self.matrix).tobytes())
        digest.update(self.target.tobytes())
        return DataSummary(rows=len(self.target), sha256=digest.hexdigest(), earliest=self.earliest, latest=self.latest)


def errors(predicted: NDArray[np.float64], actual: NDArray[np.float64]) -> dict[str, float]:
    """Root mean squared error and mean absolute error, in the unit of the values."""
    difference = predicted - actual
    return {"rmse": float(np.sqrt(np.mean(difference**2))), "mae": float(np.mean(np.abs(difference)))}


def train(
    name: str,
    estimator: Any,
    features: FeatureSet[Any],
    data: TrainingData,
    folder: Path,
    *,
    schema_id: int,
    target_limit: float = float("inf"),
    held_out: float = 0.2,
    replace: bool = False,
) -> ModelCard:
    """Fit a regressor on all the data and save it, with its errors on the latest share `held_out` of the rows.

    The errors are those of a first fit that did not see these rows. A target above `target_limit` is learned as if
    it were `target_limit`; the errors are always measured against the target itself. Raises `SettingsError` when
    there are too few rows, and as `save` does.
    """
    rows = len(data.target)
    if rows < MIN_ROWS:
        raise SettingsError(f"{rows} rows are too few to train {name}: at least {MIN_ROWS} are needed")
    learned = np.minimum(data.target, target_limit)
    split = rows - max(1, round(rows * held_out))
    # On two cores one thread is as fast as all of them on a quiet machine, and ten times as fast on a busy one.
    with threadpool_limits(limits=1):
        early = clone(estimator).fit(data.matrix[:split], learned[:split])
        final = clone(estimator).fit(data.matrix, learned)
    return save(
        folder,
        name=name,
        estimator=final,
        features=features,
        rows=data.matrix[split:],
        schema_id=schema_id,
        metrics=errors(SklearnPredictor(early)(data.matrix[split:]), data.target[split:]),
        data=data.summary(),
        replace=replace,
    )
