"""What a model is given to see of an event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

E = TypeVar("E")

Matrix: TypeAlias = NDArray[np.float32]
"""One row an event, one column a feature; a missing value is NaN."""


@dataclass(frozen=True)
class FeatureSet(Generic[E]):
    """Named features of one type of event, the same in training and in scoring.

    `build` takes n events and returns a matrix of shape (n, len(names)), its columns in the order of `names`.
    """

    names: tuple[str, ...]
    build: Callable[[Sequence[E]], Matrix]
