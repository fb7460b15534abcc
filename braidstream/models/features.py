"""What a model is given to see of an event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias

import numpy as np
from numpy.typing import NDArray

from braidstream.avro import E
from braidstream.columns import Columns
from braidstream.events import columns_of

Matrix: TypeAlias = NDArray[np.float32]
"""One row an event, one column a feature; a missing value is NaN."""


@dataclass(frozen=True)
class FeatureSet(Generic[E]):
    """Named features of one type of event, the same in training and in scoring.

    `build` takes the columns of n events, n above 0, and returns a matrix of shape (n, len(names)), its columns in the
    order of `names`.
    """

    names: tuple[str, ...]
    build: Callable[[Columns], Matrix]

    def matrix(self, events: Sequence[E]) -> Matrix:
        """The features of these events."""
        return self.build(columns_of(events)) if len(events) else np.empty((0, len(self.names)), np.float32)
