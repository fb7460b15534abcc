"""Estimators become models that predict the same, from ONNX or from skops."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pydantic import BaseModel
from sklearn.base import BaseEstimator, RegressorMixin, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import Birch
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from structlog.testing import capture_logs

from braidstream.columns import Columns
from braidstream.errors import SettingsError
from braidstream.models.export import TOLERANCE, NotExportable, export, save
from braidstream.models.features import FeatureSet, Matrix
from braidstream.models.folder import CARD, ONNX, SKOPS, DataSummary, ModelCard
from braidstream.models.loading import load_model, read_estimator
from braidstream.models.predictors import OnnxPredictor, SklearnPredictor
from braidstream.models.scorer import Scorer


class Point(BaseModel):
    colour: float | None
    size: float | None


def build(points: Columns) -> Matrix:
    return np.column_stack((points["colour"], points["size"])).astype(np.float32)


FEATURES: FeatureSet[Point] = FeatureSet(("colour", "size"), build)
DATA = DataSummary(rows=2000, sha256="00", earliest=datetime(2023, 1, 1), latest=datetime(2023, 2, 1))  # noqa: DTZ001


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Beside other busy processes, scikit-learn on every core takes minutes for these tests."""
    with threadpoolctl.threadpool_limits(limits=1):
        yield


class Custom(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator that neither skl2onnx nor skops knows."""

    def fit(self, rows: Matrix, target: NDArray[np.float64]) -> "Custom":
        self.is_fitted_ = True
        return self

    def predict(self, rows: Matrix) -> NDArray[np.float64]:
        return np.zeros(len(rows))


class Forgetful(Custom):
    """An estimator that leaves out of its file what it has learned."""

    def fit(self, rows: Matrix, target: NDArray[np.float64]) -> "Forgetful":
        self.mean_ = target.mean()
        return self

    def predict(self, rows: Matrix) -> NDArray[np.float64]:
        return np.full(len(rows), self.mean_)

    def __getstate__(self) -> dict[str, Any]:
        return {"mean_": 0.0}


def points(missing: bool = True, rows: int = 2000) -> tuple[Matrix, NDArray[np.float64]]:
    random = np.random.default_rng(0)
    colour, size = random.integers(0, 30, rows), random.random(rows)
    target: NDArray[np.float64] = np.where(colour % 2, 10.0, 40.0) + size
    matrix: Matrix = np.column_stack([colour, size]).astype(np.float32)
    if missing:
        matrix[::7, 1] = np.nan
    return matrix, target


def trees(**parameters: Any) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(max_iter=20, random_state=0, **parameters)


def classes(target: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whether the size is large, and sometimes the contrary."""
    noise = np.random.default_rng(1).random(len(target)) < 0.1
    return ((target % 1 > 0.5) ^ noise).astype(np.int64)


def save_fitted(estimator: Any, folder: Path, missing: bool = True, trusted: Sequence[str] = ()) -> ModelCard:
    matrix, target = points(missing)
    estimator.fit(matrix, classes(target) if is_classifier(estimator) else target)
    return save(
        folder,
        name="price",
        estimator=estimator,
        features=FEATURES,
        rows=matrix,
        schema_id=7,
        metrics={"rmse": 1.0},
        data=DATA,
        trusted=trusted,
    )


def test_an_exported_model_predicts_what_its_estimator_does(tmp_path: Path) -> None:
    estimator = trees()
    card = save_fitted(estimator, tmp_path / "price")
    model = load_model(str(tmp_path / "price"))
    matrix, _ = points()
    assert (card.served_by, card.not_exported) == ("onnx", None)
    assert card.libraries["scikit-learn"] == version("scikit-learn")
    assert isinstance(model.predictor, OnnxPredictor)
    assert (model.name, model.version, model.features) == ("price", card.version, ("colour", "size"))
    predicted = model.predict(matrix)
    assert predicted.shape == (2000,)
    assert predicted.dtype == np.float64
    np.testing.assert_allclose(predicted, SklearnPredictor(estimator)(matrix), rtol=0, atol=TOLERANCE * 41)
    np.testing.assert_array_equal(load_model((tmp_path / "price").as_uri()).predict(matrix), predicted)


@pytest.mark.parametrize(
    "estimator", [GradientBoostingRegressor(n_estimators=5), make_pipeline(StandardScaler(), LinearRegression())]
)
def test_other_estimators_are_exported_too(tmp_path: Path, estimator: Any) -> None:
    assert save_fitted(estimator, tmp_path / "price", missing=False).not_exported is None
    matrix, _ = points(missing=False)
    predicted = load_model(str(tmp_path / "price")).predict(matrix)
    np.testing.assert_allclose(predicted, SklearnPredictor(estimator)(matrix), rtol=0, atol=TOLERANCE * 41)


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(StandardScaler(), LogisticRegression()),
        HistGradientBoostingClassifier(max_iter=20, random_state=0),
        make_pipeline(StandardScaler(), CalibratedClassifierCV(LogisticRegression(), cv=3)),
        CalibratedClassifierCV(LogisticRegression(), cv=3),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_classifier_predicts_the_probability_of_class_1(tmp_path: Path, estimator: Any) -> None:
    card = save_fitted(estimator, tmp_path / "good", missing=False)
    model = load_model(str(tmp_path / "good"))
    matrix, _ = points(missing=False)
    assert card.not_exported is None
    assert isinstance(model.predictor, OnnxPredictor)
    expected = estimator.predict_proba(matrix)[:, 1]
    assert np.ptp(expected) > 0.2
    for rows in (matrix, matrix[:1]):
        np.testing.assert_allclose(model.predict(rows), expected[: len(rows)], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "estimator",
    [
        CalibratedClassifierCV(LinearSVC(), cv=2),
        CalibratedClassifierCV(RandomForestClassifier(n_estimators=3, random_state=0), method="isotonic", cv=2),
        CalibratedClassifierCV(HistGradientBoostingClassifier(max_iter=5), method="temperature", cv=2),
        KNeighborsClassifier(),
        KNeighborsClassifier(algorithm="ball_tree"),
        MLPClassifier(hidden_layer_sizes=2, max_iter=2000, tol=0.01),
        VotingClassifier([("near", KNeighborsClassifier())], voting="soft"),
    ],
    ids=lambda estimator: type(getattr(estimator, "estimator", estimator)).__name__,
)
def test_classifiers_of_scikit_learn_need_no_further_trust(tmp_path: Path, estimator: Any) -> None:
    save_fitted(estimator, tmp_path / "good", missing=False)
    kept = read_estimator("good", (tmp_path / "good" / SKOPS).read_bytes(), ())
    matrix, _ = points(missing=False)
    np.testing.assert_allclose(SklearnPredictor(kept)(matrix), estimator.predict_proba(matrix)[:, 1], atol=1e-12)


_VALUES = st.floats(width=32, allow_infinity=False) | st.floats(0, 30, width=32)


@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 20), st.just(2)), elements=_VALUES))
@settings(max_examples=100, deadline=None)
def test_export_and_estimator_agree_on_any_row(
    both: tuple[OnnxPredictor, HistGradientBoostingRegressor], rows: Matrix
) -> None:
    exported, estimator = both
    np.testing.assert_allclose(exported(rows), SklearnPredictor(estimator)(rows), rtol=0, atol=TOLERANCE * 41)


@pytest.fixture(scope="module")
def both() -> tuple[OnnxPredictor, HistGradientBoostingRegressor]:
    """An export and its estimator."""
    matrix, target = points()
    estimator = trees().fit(matrix, target)
    return OnnxPredictor(export(estimator, "price", matrix, SklearnPredictor(estimator)(matrix))), estimator


@pytest.mark.parametrize("kind", [HistGradientBoostingRegressor, HistGradientBoostingClassifier])
def test_a_value_between_two_values_seen_in_training_goes_the_same_way_in_the_export(kind: Any) -> None:
    seen = np.random.default_rng(0).choice(5000, 100, replace=False) / 100
    matrix = np.repeat(seen, 40).astype(np.float32)[:, None]
    target = np.random.default_rng(1).random(len(matrix))
    learned = target.round().astype(int) if kind is HistGradientBoostingClassifier else target
    estimator = kind(max_iter=20, min_samples_leaf=5, random_state=0).fit(matrix, learned)
    everything = (np.arange(5000) / 100).astype(np.float32)[:, None]
    export(estimator, "price", everything, SklearnPredictor(estimator)(everything))


def test_an_export_that_differs_is_not_written(tmp_path: Path) -> None:
    estimator = trees(categorical_features=[0])
    with capture_logs() as logs:
        card = save_fitted(estimator, tmp_path / "price")
    assert card.served_by == "scikit-learn"
    assert card.not_exported is not None
    assert "the export differs from the estimator on" in card.not_exported
    assert [(log["log_level"], log["reason"]) for log in logs] == [("warning", card.not_exported)]
    assert sorted(path.name for path in (tmp_path / "price").iterdir()) == [CARD, SKOPS]
    model = load_model(str(tmp_path / "price"))
    matrix, _ = points()
    np.testing.assert_array_equal(model.predict(matrix), SklearnPredictor(estimator)(matrix))


def test_an_export_that_differs_only_where_a_value_is_missing_is_refused(tmp_path: Path) -> None:
    matrix, target = points(missing=False)
    forest = RandomForestRegressor(n_estimators=3, random_state=0).fit(matrix, target)
    export(forest, "price", matrix, SklearnPredictor(forest)(matrix))
    card = save_fitted(forest, tmp_path / "price", missing=False)
    assert card.not_exported is not None
    assert "differs" in card.not_exported


def test_an_estimator_that_predicts_nan_is_not_exported() -> None:
    matrix, target = points()
    with pytest.raises(NotExportable, match="differs"):
        export(trees().fit(matrix, target), "price", matrix, np.full(len(matrix), np.nan))


def test_the_version_follows_from_the_data(tmp_path: Path) -> None:
    for parameters in ({}, {"categorical_features": [0]}):
        cards = [save_fitted(trees(**parameters), tmp_path / f"{number}-{len(parameters)}") for number in (1, 2)]
        other = save_fitted(trees(learning_rate=0.2, **parameters), tmp_path / f"3-{len(parameters)}")
        assert cards[0].version == cards[1].version != other.version
        assert len(other.version) == 12


def test_a_missing_model_is_reported_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no model in .*price .*train it with `python -m price.train`"):
        load_model(str(tmp_path / "price"), train_with="python -m price.train")


def test_an_estimator_of_another_scikit_learn_is_refused_and_an_export_is_not(tmp_path: Path) -> None:
    save_fitted(trees(categorical_features=[0]), tmp_path / "skops")
    save_fitted(trees(), tmp_path / "onnx")
    for folder in (tmp_path / "skops", tmp_path / "onnx"):
        card = json.loads((folder / CARD).read_text())
        card["libraries"]["scikit-learn"] = "0.1"
        (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(SettingsError, match=rf"made by scikit-learn 0\.1 and here is {version('scikit-learn')}"):
        load_model(str(tmp_path / "skops"))
    load_model(str(tmp_path / "onnx"))


def test_a_skops_file_with_a_type_that_is_not_trusted_is_refused(tmp_path: Path) -> None:
    of_this_module = f"{__name__}.Custom"
    advice = rf"if you trust {of_this_module}, give trusted=\('{of_this_module}',\) to what trains it"
    with pytest.raises(SettingsError, match=f"price: the model is made of types that are not trusted: {advice}"):
        save_fitted(Custom(), tmp_path / "price")
    with capture_logs() as logs:
        card = save_fitted(Custom(), tmp_path / "price", trusted=(of_this_module,))
    assert card.served_by == "scikit-learn"
    assert [log["log_level"] for log in logs] == ["info"]
    with pytest.raises(SettingsError, match=advice):
        load_model(str(tmp_path / "price"))
    assert load_model(str(tmp_path / "price"), trusted=(of_this_module,)).predict(points()[0][:2]).tolist() == [0, 0]


def test_a_type_that_no_other_program_can_import_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Custom, "__module__", "__main__")
    with pytest.raises(SettingsError, match=r"price is made of __main__\.Custom, which no other program can import"):
        save_fitted(Custom(), tmp_path / "price", trusted=("__main__.Custom",))


def test_an_estimator_that_does_not_survive_its_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"read back from model\.skops, differs from the estimator on 2000 of 2000"):
        save_fitted(Forgetful(), tmp_path / "price", trusted=(f"{__name__}.Forgetful",))


def test_an_estimator_that_needs_pickle_is_refused(tmp_path: Path) -> None:
    estimator = Custom()
    estimator.clusters_ = Birch()
    with pytest.raises(SettingsError, match="price cannot be kept in a file without pickle"):
        save_fitted(estimator, tmp_path / "price")


@pytest.mark.parametrize(
    ("file", "parameters", "message"),
    [
        (ONNX, {}, "onnxruntime .* cannot load the model"),
        (SKOPS, {"categorical_features": [0]}, "skops .* does not load the model"),
    ],
)
def test_a_file_that_is_no_model_is_refused(
    tmp_path: Path, file: str, parameters: dict[str, Any], message: str
) -> None:
    save_fitted(trees(**parameters), tmp_path / "price")
    (tmp_path / "price" / file).write_bytes(b"no model")
    with pytest.raises(SettingsError, match=f"{file} is not the file that model.json describes"):
        load_model(str(tmp_path / "price"))
    card = json.loads((tmp_path / "price" / CARD).read_text())
    card["files"][file] = hashlib.sha256(b"no model").hexdigest()
    (tmp_path / "price" / CARD).write_text(json.dumps(card))
    with pytest.raises(SettingsError, match=message):
        load_model(str(tmp_path / "price"))


def test_onnx_runs_on_one_thread(both: tuple[OnnxPredictor, HistGradientBoostingRegressor]) -> None:
    options = both[0].session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_scikit_learn_predicts_on_one_thread_and_gives_the_others_back() -> None:
    seen: list[set[int]] = []

    class Watched(Custom):
        def predict(self, rows: Matrix) -> NDArray[np.float64]:
            seen.append(openmp_threads())
            return np.zeros(len(rows))

    def openmp_threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "openmp"}

    with threadpoolctl.threadpool_limits(limits=3):
        SklearnPredictor(Watched())(points()[0])
        assert seen == [{1}]
        assert openmp_threads() == {3}


def test_a_scorer_gives_a_value_an_event_in_order(tmp_path: Path) -> None:
    save_fitted(trees(), tmp_path / "price")
    model = load_model(str(tmp_path / "price"))
    score = Scorer(model, FEATURES)
    events = [Point(colour=1, size=0.5), Point(colour=2, size=0.5), Point(colour=2, size=None)]
    values = score(events)
    matrix = np.array([[1, 0.5], [2, 0.5], [2, np.nan]], np.float32)
    np.testing.assert_array_equal(values, model.predict(matrix))
    assert [round(value, -1) for value in values] == [10, 40, 40]
    assert score([]).shape == (0,)


def test_a_scorer_refuses_a_model_made_for_other_features(tmp_path: Path) -> None:
    save_fitted(trees(), tmp_path / "price")
    with pytest.raises(
        SettingsError, match=r"price \w{12} was made for other features.*colour \(float32\), size.*size.*, colour"
    ):
        Scorer(load_model(str(tmp_path / "price")), FeatureSet[Point](("size", "colour"), build))


def test_a_scorer_gives_what_the_model_gives(tmp_path: Path) -> None:
    save_fitted(LinearRegression(), tmp_path / "price", missing=False)
    score = Scorer(load_model(str(tmp_path / "price")), FEATURES)
    assert np.isnan(score([Point(colour=1, size=2), Point(colour=None, size=4)])).tolist() == [False, True]
    assert score([]).shape == (0,)


def test_skops_holds_the_estimator_beside_an_export(tmp_path: Path) -> None:
    estimator = trees()
    save_fitted(estimator, tmp_path / "price")
    trusted = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]
    kept = skops.io.load(tmp_path / "price" / SKOPS, trusted=trusted)
    np.testing.assert_array_equal(SklearnPredictor(kept)(points()[0]), SklearnPredictor(estimator)(points()[0]))
