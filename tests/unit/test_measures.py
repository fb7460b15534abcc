"""How good predictions are, and thresholds that are chosen by it."""

import numpy as np
import pytest

from braidstream.errors import SettingsError
from braidstream.models.measures import errors, probability_measures, threshold_for_precision

TARGET = np.array([0.0, 1, 0, 1, 1, 1])
PROBABILITY = np.array([0.1, 0.2, 0.5, 0.5, 0.8, 0.9])


def test_errors() -> None:
    assert errors(np.array([1.0, 2, 3]), np.array([1.0, 5, -1])) == {"rmse": (25 / 3) ** 0.5, "mae": 7 / 3}


def test_measures_of_probabilities() -> None:
    measures = probability_measures(TARGET, PROBABILITY, {"review": 0.5, "remove": 0.85, "never": 0.95})
    assert measures == pytest.approx(
        {
            "average_precision": 0.5 + 0.25 * 3 / 4 + 0.25 * 4 / 5,
            "brier": (0.01 + 0.64 + 0.25 + 0.25 + 0.04 + 0.01) / 6,
            "threshold_review": 0.5,
            "precision_review": 3 / 4,
            "recall_review": 3 / 4,
            "threshold_remove": 0.85,
            "precision_remove": 1.0,
            "recall_remove": 1 / 4,
            "threshold_never": 0.95,
            "recall_never": 0.0,
        }
    )


@pytest.mark.parametrize(("precision", "threshold"), [(1, 0.8), (0.9, 0.8), (0.8, 0.2), (0.75, 0.2), (0.5, 0.1)])
def test_the_lowest_threshold_with_a_precision_is_chosen(precision: float, threshold: float) -> None:
    chosen = threshold_for_precision(TARGET, PROBABILITY, precision)
    assert chosen == threshold
    assert probability_measures(TARGET, PROBABILITY, {"it": chosen})["precision_it"] >= precision


def test_a_precision_that_no_threshold_has_is_refused() -> None:
    target = np.array([1.0, 1, 0, 0])
    with pytest.raises(
        SettingsError, match=r"no threshold has a precision of 0\.9 on these 4 rows: the best is 0\.500"
    ):
        threshold_for_precision(target, np.array([0.1, 0.2, 0.3, 0.4]), 0.9)
    with pytest.raises(SettingsError, match="none of 4 rows is of class 1"):
        threshold_for_precision(np.zeros(4), PROBABILITY[:4], 0.9)
    for precision in (0, 90):
        with pytest.raises(SettingsError, match=f"above 0 and at most 1, and {precision} is not"):
            threshold_for_precision(TARGET, PROBABILITY, precision)
