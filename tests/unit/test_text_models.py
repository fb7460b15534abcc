"""Models of text: trained, kept and loaded without pickle, and served by scikit-learn."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from pydantic import BaseModel
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline, make_union
from structlog.testing import capture_logs

from braidstream.columns import Columns
from braidstream.errors import SettingsError
from braidstream.models.features import FeatureSet, Matrix
from braidstream.models.folder import SKOPS, Feature, is_model
from braidstream.models.loading import load_model
from braidstream.models.scorer import Scorer
from braidstream.models.training import TrainingData, train


class Video(BaseModel):
    title: str
    description: str | None


def build(videos: Columns) -> Matrix:
    return np.column_stack((videos["title"], videos["description"]))


FEATURES: FeatureSet[Video] = FeatureSet(("title", "description"), build, kind="text")
CALM = ("garden", "piano", "lesson", "recipe", "travel", "kitten")
ROUGH = ("fight", "knockout", "brawl", "blood", "riot", "weapon")


class Shouting(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The share of capitals in each text: a transformer that is not scikit-learn's."""

    def fit(self, texts: Matrix, target: Any = None) -> "Shouting":
        self.is_fitted_ = True
        return self

    def transform(self, texts: Matrix) -> Any:
        return np.array([[sum(map(str.isupper, text)) / max(1, len(text)) for text in row] for row in texts])


def words() -> ColumnTransformer:
    return ColumnTransformer([("title", TfidfVectorizer(), 0), ("description", TfidfVectorizer(min_df=2), 1)])


def calibrated() -> Any:
    return make_pipeline(words(), CalibratedClassifierCV(LogisticRegression(), cv=3))


def videos(rows: int = 200) -> tuple[list[Video], TrainingData]:
    """Rough videos and calm ones, a tenth of them under words of the other kind, some without a description."""
    random = np.random.default_rng(0)
    target = random.integers(0, 2, rows).astype(np.float64)
    found = []
    for number, rough in enumerate(target):
        vocabulary = ROUGH if (rough == 1) ^ (random.random() < 0.1) else CALM
        title, description = (" ".join(random.choice(vocabulary, count)) for count in (3, 8))
        found.append(Video(title=title, description=None if number % 9 == 0 else description))
    time = datetime(2026, 1, 1)  # noqa: DTZ001
    return found, TrainingData(FEATURES.matrix(found), target, time, time)


def test_a_calibrated_text_classifier_predicts_the_same_when_it_is_loaded(tmp_path: Path) -> None:
    events, data = videos()
    with capture_logs() as logs:
        card = train("violence", calibrated(), FEATURES, data, tmp_path / "violence", schema_id=7)
    assert (card.served_by, card.features) == (
        "scikit-learn",
        (Feature(name="title", type="string"), Feature(name="description", type="string")),
    )
    assert card.not_exported == "ONNX splits text into words by other rules than scikit-learn does"
    assert [log["log_level"] for log in logs] == ["info"]
    assert card.metrics["average_precision"] > 0.8

    score = Scorer(load_model(str(tmp_path / "violence")), FEATURES)
    expected = calibrated().fit(data.matrix, data.target).predict_proba(data.matrix)[:, 1]
    np.testing.assert_allclose(score(events), expected, rtol=0, atol=1e-12)
    rough, calm = score([Video(title="riot and blood", description=None), Video(title="piano", description="a lesson")])
    assert rough > 0.6
    assert calm < 0.4
    assert score([]).shape == (0,)


def test_whatever_the_text_is_it_has_a_probability(tmp_path: Path) -> None:
    train("violence", calibrated(), FEATURES, videos()[1], tmp_path / "violence", schema_id=7)
    texts = [None, "", "\x00", "🎬🔥" * 100, "é\u202e\u200b", "a" * 1_000_000, "riot " * 200_000]
    values = Scorer(load_model(str(tmp_path / "violence")), FEATURES)(
        [Video(title=text or "", description=text) for text in texts]
    )
    assert np.all((values > 0) & (values < 1))
    assert values[0] == values[1] == values[3]


def test_neighbours_of_texts_need_no_further_trust(tmp_path: Path) -> None:
    events, data = videos()
    letters = ColumnTransformer([("letters", HashingVectorizer(analyzer="char_wb", ngram_range=(3, 3)), 0)])
    estimator = make_pipeline(letters, KNeighborsClassifier(5, metric="cosine"))
    train("violence", estimator, FEATURES, data, tmp_path / "violence", schema_id=7)
    expected = estimator.fit(data.matrix, data.target).predict_proba(data.matrix)[:, 1]
    np.testing.assert_array_equal(Scorer(load_model(str(tmp_path / "violence")), FEATURES)(events), expected)


def test_a_vocabulary_is_not_kept_as_a_file_a_word(tmp_path: Path) -> None:
    limited = ColumnTransformer([("title", TfidfVectorizer(max_features=200), 0)])
    estimator = CalibratedClassifierCV(make_pipeline(limited, LogisticRegression()), cv=2)
    events = [
        Video(title=f"riot{number}" if number % 2 else f"piano{number}", description=None) for number in range(600)
    ]
    data = replace(videos(600)[1], matrix=FEATURES.matrix(events))
    train("violence", estimator, FEATURES, data, tmp_path / "violence", schema_id=7)
    with ZipFile(tmp_path / "violence" / SKOPS) as file:
        assert len(file.namelist()) < 100


def test_text_can_be_learned_by_a_regressor(tmp_path: Path) -> None:
    events, data = videos()
    card = train("minutes", make_pipeline(words(), Ridge()), FEATURES, data, tmp_path / "minutes", schema_id=7)
    assert card.metrics.keys() == {"rmse", "mae"}
    assert Scorer(load_model(str(tmp_path / "minutes")), FEATURES)(events).shape == (200,)


def test_a_transformer_of_ones_own_is_trusted_by_name(tmp_path: Path) -> None:
    events, data = videos()
    estimator = make_pipeline(make_union(words(), Shouting()), LogisticRegression())
    name = f"{__name__}.Shouting"
    with pytest.raises(SettingsError, match=rf"if you trust {name}, give trusted=\('{name}',\) to what trains it"):
        train("violence", estimator, FEATURES, data, tmp_path / "violence", schema_id=7)
    assert not is_model(tmp_path / "violence")
    train("violence", estimator, FEATURES, data, tmp_path / "violence", schema_id=7, trusted=[name])
    with pytest.raises(SettingsError, match=f"if you trust {name}"):
        load_model(str(tmp_path / "violence"))
    score = Scorer(load_model(str(tmp_path / "violence"), trusted=[name]), FEATURES)
    expected = estimator.fit(data.matrix, data.target).predict_proba(data.matrix)[:, 1]
    np.testing.assert_allclose(score(events), expected, rtol=0, atol=1e-12)


def test_the_card_tells_texts_apart() -> None:
    _, data = videos()
    others = [np.array([["a", "bc"]], object), np.array([["ab", "c"]], object), np.array([["a", "b"]], object)]
    sums = {TrainingData(matrix, data.target, data.earliest, data.latest).summary().sha256 for matrix in others}
    assert len(sums) == 3
    assert videos()[1].summary() == data.summary()


def test_a_scorer_refuses_a_model_made_for_features_of_another_kind(tmp_path: Path) -> None:
    train("violence", calibrated(), FEATURES, videos()[1], tmp_path / "violence", schema_id=7)
    numbers: FeatureSet[Video] = FeatureSet(FEATURES.names, build)
    with pytest.raises(SettingsError, match=r"takes title \(string\), .*; here are title \(float32\), "):
        Scorer(load_model(str(tmp_path / "violence")), numbers)


def test_text_that_is_none_is_refused(tmp_path: Path) -> None:
    _, data = videos()
    data.matrix[3, 1] = 7
    with pytest.raises(SettingsError, match="violence has features of kind 'text', and among them values of int"):
        train("violence", calibrated(), FEATURES, data, tmp_path / "violence", schema_id=7)
    numbers = TrainingData(np.zeros((200, 2), np.float32), data.target, data.earliest, data.latest)
    with pytest.raises(SettingsError, match="features of kind 'text', and a matrix of float32"):
        train("violence", calibrated(), FEATURES, numbers, tmp_path / "violence", schema_id=7)


def test_strings_of_any_numpy_type_are_text() -> None:
    fixed: FeatureSet[Video] = FeatureSet(("title",), lambda videos: videos["title"].astype(str)[:, None], kind="text")
    matrix = fixed.matrix([Video(title="a", description=None), Video(title="long", description=None)])
    assert matrix.dtype == object
    assert matrix.tolist() == [["a"], ["long"]]
