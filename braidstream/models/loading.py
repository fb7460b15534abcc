"""From a model's address to a model that predicts. Nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braidstream.errors import SettingsError
from braidstream.models.features import Matrix
from braidstream.models.folder import CARD, ONNX, SKOPS, ModelCard, folder_of, is_model, read_card, read_file
from braidstream.models.predictors import OnnxPredictor, Predictor, SklearnPredictor

TRUSTED_TYPES = (
    # What HistGradientBoosting is made of.
    "functools.partial",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
    # The trees of forests and of GradientBoosting. As with those above, a forged one can crash the process.
    "sklearn.tree._tree.Tree",
    # What CalibratedClassifierCV is made of: classifiers and numbers.
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    # What VotingClassifier and others keep their parts in: a dictionary.
    "sklearn.utils._bunch.Bunch",
    # What neighbours are found in: numbers, and of the two trees, as above, a forged one can crash the process.
    "scipy.sparse._csr.csr_matrix",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    # What MLPClassifier and MLPRegressor were trained by: numbers.
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
)
"""What a skops file may hold beyond the types that skops itself trusts."""


class UntrustedTypesError(SettingsError):
    """The model is made of types that neither this package nor the caller trusts."""


@dataclass(frozen=True)
class Model:
    """A trained model, ready to predict on one thread."""

    card: ModelCard
    predictor: Predictor = field(repr=False)

    @property
    def name(self) -> str:
        """What the model is called, for example `duration`."""
        return self.card.name

    @property
    def version(self) -> str:
        """Twelve hexadecimal digits that follow from the model's content."""
        return self.card.version

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the columns that `predict` takes, in their order."""
        return tuple(feature.name for feature in self.card.features)

    def predict(self, matrix: Matrix) -> NDArray[np.float64]:
        """The values for n rows of features, in shape (n,): of a classifier, the probabilities of class 1."""
        return self.predictor(matrix)


def load_model(uri: str, *, train_with: str | None = None, trusted: Sequence[str] = ()) -> Model:
    """Load the model that a folder holds, named by its path or by `file:///path`.

    `train_with` is the command that makes the model, for the message when there is none. `trusted` are the full names
    of types of your own that the model may be made of, for example `shop.features.Sizes`. Raises `SettingsError` when
    the model is missing, damaged, made by another version of scikit-learn (where that matters), or not to be trusted.
    """
    folder = folder_of(uri)
    if not is_model(folder):
        advice = f"train it with `{train_with}`" if train_with else "train it, or set MODEL_URI to where it is"
        raise SettingsError(f"there is no model in {folder} ({CARD} is missing): {advice}")
    card = read_card(folder)
    if card.served_by == "onnx":
        return Model(card, _onnx(uri, read_file(folder, card, ONNX)))
    return Model(card, _scikit_learn(uri, card, read_file(folder, card, SKOPS), trusted))


def _onnx(uri: str, content: bytes) -> Predictor:
    try:
        return OnnxPredictor(content)
    except Exception as error:  # onnxruntime's exceptions share no base
        raise SettingsError(f"{uri}: onnxruntime {version('onnxruntime')} cannot load the model: {error}") from error


def _scikit_learn(uri: str, card: ModelCard, content: bytes, trusted: Sequence[str]) -> Predictor:
    made_by, here = card.libraries.get("scikit-learn"), version("scikit-learn")
    if made_by != here:
        raise SettingsError(
            f"{uri} was made by scikit-learn {made_by} and here is {here}: install that version, or train it again"
        )
    return SklearnPredictor(read_estimator(uri, content, trusted))


def read_estimator(origin: str, content: bytes, trusted: Sequence[str]) -> Any:
    """The estimator that a skops file of this content holds; `origin` names it in messages.

    Raises `SettingsError` when it is made of types that nobody trusts, or is damaged.
    """
    import skops.io  # brings all of scikit-learn, which a model served by ONNX Runtime does without
    from skops.io.exceptions import UntrustedTypesFoundException

    allowed = [*TRUSTED_TYPES, *trusted]
    try:
        return skops.io.loads(content, trusted=allowed)
    except UntrustedTypesFoundException as error:
        unknown = sorted(set(skops.io.get_untrusted_types(data=content)).difference(allowed))
        raise UntrustedTypesError(
            f"{origin}: the model is made of types that are not trusted: if you trust {', '.join(unknown)}, give "
            f"trusted={tuple(unknown)} to what trains it (train, run_training) and to what serves it (run_scorer, "
            "load_model)"
        ) from error
    except Exception as error:  # whatever a damaged file makes skops raise
        raise SettingsError(f"{origin}: skops {version('skops')} does not load the model: {error}") from error
