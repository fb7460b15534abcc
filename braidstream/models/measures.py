"""How good predictions are, on rows that were not learned from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, brier_score_loss, precision_recall_curve

from braidstream.errors import SettingsError


def errors(target: NDArray[np.float64], predicted: NDArray[np.float64]) -> dict[str, float]:
    """Root mean squared error (`rmse`) and mean absolute error (`mae`), in the unit of the values."""
    difference = predicted - target
    return {"rmse": float(np.sqrt(np.mean(difference**2))), "mae": float(np.mean(np.abs(difference)))}


def probability_measures(
    target: NDArray[np.float64], probability: NDArray[np.float64], thresholds: Mapping[str, float]
) -> dict[str, float]:
    """Measures of probabilities of class 1 against the classes, 0 or 1, at least one of them 1.

    They are the area under the curve of precision and recall (`average_precision`), the mean squared error of the
    probabilities (`brier`), and for each threshold `NAME` in `thresholds`, of the rows at or above it: `threshold_NAME`
    itself, `precision_NAME`, how many of them are of class 1, left out when there are none, and `recall_NAME`, how many
    of class 1 are among them.
    """
    measures = {
        "average_precision": float(average_precision_score(target, probability)),
        "brier": float(brier_score_loss(target, probability)),
    }
    positive = target == 1
    for name, threshold in thresholds.items():
        found = probability >= threshold
        measures[f"threshold_{name}"] = threshold
        if found.any():
            measures[f"precision_{name}"] = float(np.mean(positive[found]))
        measures[f"recall_{name}"] = float(np.mean(found[positive]))
    return measures


def threshold_for_precision(target: NDArray[np.float64], probability: NDArray[np.float64], precision: float) -> float:
    """The lowest threshold at which rows at or above it are of class 1 at least as often as `precision` says.

    `target` are the classes, 0 or 1, of rows that the model has not seen, and `probability` what it says of them. The
    precision of a threshold that is chosen so is a little lower on other rows: measure it on rows of their own. Raises
    `SettingsError` when there is no such threshold.
    """
    if not 0 < precision <= 1:
        raise SettingsError(f"a precision is above 0 and at most 1, and {precision} is not")
    if not np.any(target == 1):
        raise SettingsError(f"none of {len(target)} rows is of class 1: no threshold can be chosen on them")
    reached, _, thresholds = precision_recall_curve(target, probability)
    enough = thresholds[reached[:-1] >= precision]  # the last precision is of no threshold
    if not enough.size:
        raise SettingsError(
            f"no threshold has a precision of {precision} on these {len(target)} rows: "
            f"the best is {reached[:-1].max():.3f}"
        )
    return float(enough[0])
