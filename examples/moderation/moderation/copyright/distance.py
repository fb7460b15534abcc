"""How near an upload is to the nearest protected work."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.neighbors import NearestNeighbors

from braidstream import Matrix


class NearestDistance(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The distance to the nearest of the `works`, in bits: from n rows of bits (0 and 1) to shape (n, 1).

    `works` has one row of bits for each. It is a part of the model: another library is another model.
    """

    def __init__(self, works: Matrix) -> None:
        self.works = works

    def fit(self, _rows: Matrix, _target: object = None) -> Self:
        """Learn the works; what it is shown of uploads plays no part."""
        # For 0 and 1 the squared Euclidean distance is the number of bits that differ, and a product of matrices.
        self.neighbors_ = NearestNeighbors(n_neighbors=1, algorithm="brute", metric="sqeuclidean").fit(self.works)
        return self

    def transform(self, rows: Matrix) -> NDArray[np.float64]:
        """The distances."""
        distances, _ = self.neighbors_.kneighbors(rows)
        return np.rint(np.asarray(distances, np.float64))
