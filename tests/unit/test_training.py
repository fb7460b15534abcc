"""Training, on data of no pipeline."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel
from sklearn.dummy import DummyRegressor

from braidstream.errors import SettingsError
from braidstream.models.features import FeatureSet
from braidstream.models.folder import is_model
from braidstream.models.loading import load
from braidstream.models.training import MIN_ROWS, TrainingData, errors, train


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


def test_errors() -> None:
    assert errors(np.array([1.0, 2, 3]), np.array([1.0, 5, -1])) == {"rmse": (25 / 3) ** 0.5, "mae": 7 / 3}


def test_metrics_are_of_a_model_that_has_not_seen_the_latest_rows_and_the_model_has_seen_all(tmp_path: Path) -> None:
    card = train("price", DummyRegressor(), FEATURES, DATA, tmp_path / "price", schema_id=7)
    assert card.metrics == {"rmse": 10**0.5, "mae": 3.0}
    model = load(str(tmp_path / "price"))
    assert model.predict(FEATURES.matrix([Item(size=0)])) == pytest.approx([1.6])


def test_a_target_above_the_limit_is_learned_as_the_limit_and_measured_as_it_is(tmp_path: Path) -> None:
    card = train("price", DummyRegressor(), FEATURES, DATA, tmp_path / "price", schema_id=7, target_limit=2)
    assert card.metrics == {"rmse": 10**0.5, "mae": 3.0}
    assert load(str(tmp_path / "price")).predict(FEATURES.matrix([Item(size=0)])) == pytest.approx([1.2])


def test_the_card_tells_the_data_apart(tmp_path: Path) -> None:
    card = train("price", DummyRegressor(), FEATURES, DATA, tmp_path / "price", schema_id=7)
    assert (card.data.rows, card.data.earliest, card.data.latest) == (10, DATA.earliest, DATA.latest)
    assert card.data.sha256 == DATA.summary().sha256
    assert replace(DATA, target=DATA.target + 1).summary().sha256 != card.data.sha256
    assert replace(DATA, matrix=DATA.matrix + 1).summary().sha256 != card.data.sha256


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    few = replace(DATA, matrix=DATA.matrix[:9], target=DATA.target[:9])
    with pytest.raises(SettingsError, match=f"9 rows are too few to train price: at least {MIN_ROWS} are needed"):
        train("price", DummyRegressor(), FEATURES, few, tmp_path / "price", schema_id=7)
    assert not is_model(tmp_path / "price")
