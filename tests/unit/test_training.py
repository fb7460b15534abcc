"""Training, on data of no pipeline."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from braidstream.errors import SettingsError
from braidstream.models.features import FeatureSet
from braidstream.models.folder import is_model
from braidstream.models.loading import load_model
from braidstream.models.training import MIN_ROWS, TrainingData, train


class Item(BaseModel):
    """Something that has a price."""

    size: float


FEATURES: FeatureSet[Item] = FeatureSet(("size",), lambda items: items["size"].astype(np.float32)[:, None])
DATA = TrainingData(
    matrix=np.arange(10, dtype=np.float32)[:, None],
    target=np.array([1.0, 1, 1, 1, 1, 1, 1, 1, 3, 5]),
    earliest=datetime(2023, 1, 1),  # noqa: DTZ001
    latest=datetime(2023, 1, 31),  # noqa: DTZ001
)


def test_metrics_are_of_a_model_that_has_not_seen_the_latest_rows_and_the_model_has_seen_all(tmp_path: Path) -> None:
    card = train("price", DummyRegressor(), FEATURES, DATA, tmp_path / "price", schema_id=7)
    assert card.metrics == {"rmse": 10**0.5, "mae": 3.0}
    model = load_model(str(tmp_path / "price"))
    assert model.predict(FEATURES.matrix([Item(size=0)])) == pytest.approx([1.6])


def test_a_target_above_the_limit_is_learned_as_the_limit_and_measured_as_it_is(tmp_path: Path) -> None:
    card = train("price", DummyRegressor(), FEATURES, DATA, tmp_path / "price", schema_id=7, target_limit=2)
    assert card.metrics == {"rmse": 10**0.5, "mae": 3.0}
    assert load_model(str(tmp_path / "price")).predict(FEATURES.matrix([Item(size=0)])) == pytest.approx([1.2])


def test_the_card_tells_the_data_apart(tmp_path: Path) -> None:
    card = train("price", DummyRegressor(), FEATURES, DATA, tmp_path / "price", schema_id=7)
    assert (card.data.rows, card.data.earliest, card.data.latest) == (10, DATA.earliest, DATA.latest)
    assert card.data.sha256 == DATA.summary().sha256
    assert replace(DATA, target=DATA.target + 1).summary().sha256 != card.data.sha256
    assert replace(DATA, matrix=DATA.matrix + 1).summary().sha256 != card.data.sha256


def test_a_model_of_double_precision_numbers_is_exported(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((100, 1))
    data = TrainingData(rows, np.sin(9 * rows[:, 0]))  # type: ignore[arg-type]
    estimator = HistGradientBoostingRegressor(max_iter=5)
    card = train("price", estimator, FEATURES, data, tmp_path / "price", schema_id=7)
    assert (card.served_by, card.not_exported) == ("onnx", None)


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    few = replace(DATA, matrix=DATA.matrix[:9], target=DATA.target[:9])
    with pytest.raises(SettingsError, match=f"9 rows are too few to train price: at least {MIN_ROWS} are needed"):
        train("price", DummyRegressor(), FEATURES, few, tmp_path / "price", schema_id=7)
    assert not is_model(tmp_path / "price")


CLASSES = replace(DATA, target=np.array([0.0, 1, 0, 1, 0, 1, 0, 1, 1, 0]))


def test_a_classifier_is_measured_by_its_probabilities(tmp_path: Path) -> None:
    card = train(
        "good", DummyClassifier(), FEATURES, CLASSES, tmp_path / "good", schema_id=7, thresholds={"a": 0.5, "b": 0.6}
    )
    assert card.metrics == {
        "average_precision": 0.5,
        "brier": 0.25,
        "threshold_a": 0.5,
        "precision_a": 0.5,
        "recall_a": 1.0,
        "threshold_b": 0.6,
        "recall_b": 0.0,
    }
    assert load_model(str(tmp_path / "good")).predict(FEATURES.matrix([Item(size=0)])) == pytest.approx([0.5])


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (KMeans(), r"good cannot be trained: KMeans\(\) is neither a regressor nor a classifier"),
        (LinearSVC(), r"LinearSVC\(\) has no predict_proba.*CalibratedClassifierCV"),
    ],
)
def test_estimators_without_a_value_are_refused(tmp_path: Path, estimator: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        train("good", estimator, FEATURES, CLASSES, tmp_path / "good", schema_id=7)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (replace(CLASSES, target=np.arange(10.0) % 3), "targets have to be 0 and 1; here they are 0, 1, 2"),
        (replace(CLASSES, target=np.ones(10)), "here they are 1"),
        (replace(CLASSES, target=np.array([0.0] * 8 + [1, 1])), "the earlier 8 rows have to hold both classes"),
        (replace(CLASSES, target=np.array([0.0, 1] + [0] * 8)), "the later 2 class 1"),
        (replace(CLASSES, target=np.ones((10, 2))), r"one number a row: the target is of shape \(10, 2\)"),
        (replace(CLASSES, matrix=np.ones((9, 1), np.float32)), r"10 targets and 1 features, and .* shape \(9, 1\)"),
        (replace(CLASSES, matrix=np.full((10, 1), "a", object)), "features of kind 'number', and a matrix of object"),
    ],
)
def test_rows_that_do_not_fit_a_classifier_are_refused(tmp_path: Path, data: TrainingData, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        train("good", LogisticRegression(), FEATURES, data, tmp_path / "good", schema_id=7)
    assert not is_model(tmp_path / "good")


@pytest.mark.parametrize(
    ("estimator", "options", "message"),
    [
        (DummyClassifier(), {"target_limit": 0.5}, "good is a classifier: target_limit is for regressors"),
        (DummyRegressor(), {"thresholds": {"a": 0.5}}, "good is a regressor: thresholds are for classifiers"),
        (DummyClassifier(), {"thresholds": {"a": 50.0}}, "from 0 to 1, and 50.0 is none"),
    ],
)
def test_options_that_do_nothing_are_refused(
    tmp_path: Path, estimator: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        train("good", estimator, FEATURES, CLASSES, tmp_path / "good", schema_id=7, **options)


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        (slice(None), r"Input X contains NaN; size is empty in all rows$"),
        (slice(8), r"Input X contains NaN; size is empty in the earlier 8 rows$"),
        (slice(9, 10), r"Input X contains NaN$"),
    ],
)
def test_what_an_estimator_cannot_learn_is_said_with_the_feature(tmp_path: Path, missing: slice, why: str) -> None:
    matrix = DATA.matrix.copy()
    matrix[missing] = np.nan
    with pytest.raises(SettingsError, match=f"^price cannot be trained: ValueError: {why}"):
        train("price", LinearRegression(), FEATURES, replace(DATA, matrix=matrix), tmp_path / "price", schema_id=7)
    assert not is_model(tmp_path / "price")


def test_texts_of_which_none_can_be_learned_are_named(tmp_path: Path) -> None:
    texts: FeatureSet[Item] = FeatureSet(("title",), lambda items: np.full((items.rows, 1), "", object), kind="text")
    estimator = make_pipeline(ColumnTransformer([("title", TfidfVectorizer(), 0)]), LinearRegression())
    data = replace(DATA, matrix=np.full((10, 1), "", object))
    with pytest.raises(SettingsError, match=r"empty vocabulary; .*; title is empty in all rows"):
        train("price", estimator, texts, data, tmp_path / "price", schema_id=7)
