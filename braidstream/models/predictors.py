"""How a trained model computes: by ONNX Runtime or by scikit-learn, either way on one thread.

A worker process is one thread of prediction; more cores are more workers. Left to use every core, scikit-learn was 30
times slower beside one busy process than it is on one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from braidstream.models.features import Matrix

Predictor: TypeAlias = Callable[[Matrix], NDArray[np.float64]]
"""From n rows of features to n values; the same rows always give the same values."""


class OnnxPredictor:
    """Runs an ONNX model of one input; raises onnxruntime's own errors when it cannot be read.

    Its values are the last column of its last output. A regressor has only that one; of a binary classifier, whose
    outputs are the class and the probabilities of both, it is the probability of class 1.
    """

    def __init__(self, model: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._input = self.session.get_inputs()[0].name
        self._output = self.session.get_outputs()[-1].name

    def __call__(self, matrix: Matrix) -> NDArray[np.float64]:
        """One value a row."""
        (values,) = self.session.run([self._output], {self._input: matrix})
        return np.asarray(values[:, -1], dtype=np.float64)


class SklearnPredictor:
    """Runs a fitted scikit-learn regressor, or a classifier of classes 0 and 1 for its probability of class 1."""

    def __init__(self, estimator: Any) -> None:
        from sklearn.base import is_classifier  # brings all of scikit-learn, which ONNX Runtime does without

        self._estimator = estimator
        self._classifies = is_classifier(estimator)
        self._threads = ThreadpoolController()

    def __call__(self, matrix: Matrix) -> NDArray[np.float64]:
        """One value a row."""
        with self._threads.limit(limits=1):
            if self._classifies:
                values = self._estimator.predict_proba(matrix)[:, 1]
            else:
                values = self._estimator.predict(matrix)
        return np.asarray(values, dtype=np.float64).reshape(-1)
