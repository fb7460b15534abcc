"""What a model is given to see of an event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from braidstream.avro import E
from braidstream.columns import Array, Columns, UnknownField
from braidstream.errors import FatalError
from braidstream.events import columns_of
from braidstream.models.folder import Feature

Matrix: TypeAlias = NDArray[np.float32] | NDArray[np.object_]
"""One row an event, one column a feature: numbers, of which a missing one is NaN, or strings."""

_NONE = np.array(None, object)


@dataclass(frozen=True)
class FeatureSet(Generic[E]):
    """Named features of one type of event, the same in training and in scoring.

    `build` takes the columns of n events, n above 0, and returns a matrix of shape (n, len(names)), its columns in the
    order of `names`. Of kind "number" it is one of numbers, which become single-precision ones. Of kind "text" it is an
    object array of strings, in which None becomes "".
    """

    names: tuple[str, ...]
    build: Callable[[Columns], Matrix]
    kind: Literal["number", "text"] = "number"

    @property
    def described(self) -> tuple[Feature, ...]:
        """What `model.json` says of these features."""
        return tuple(Feature(name=name, type="string" if self.kind == "text" else "float32") for name in self.names)

    def matrix(self, events: Sequence[E]) -> Matrix:
        """The features of these events.

        Raises `FatalError` when `build` asks for a field that the events do not have, or its matrix is of another
        shape: that is no event's fault.
        """
        if not len(events):
            return np.empty((0, len(self.names)), object if self.kind == "text" else np.float32)
        try:
            matrix = self.build(columns_of(events))
        except UnknownField as error:
            raise FatalError(f"build cannot make the features: {error}") from error
        if (shape := np.shape(matrix)) != (len(events), len(self.names)):
            raise FatalError(_misshapen(shape, len(events), self.names))
        return _without_none(matrix) if self.kind == "text" else single_precision(matrix)


def single_precision(matrix: Matrix) -> Matrix:
    """The matrix with its numbers as models take them; one of another type is left as it is."""
    return matrix.astype(np.float32, copy=False) if matrix.dtype.kind in "biuf" else matrix


def _misshapen(shape: tuple[int, ...], rows: int, names: Sequence[str]) -> str:
    listed = f"and names has {len(names)} ({', '.join(names)})"
    if len(shape) == 2 and shape[0] == rows:
        return f"build gives {shape[1]} columns, {listed}: mend the one or the other"
    return f"build gives a matrix of shape {shape} for {rows} events, {listed}: it has to be {(rows, len(names))}"


def _without_none(texts: Array) -> NDArray[np.object_]:
    texts = texts.astype(object)
    texts[np.equal(texts, _NONE)] = ""
    return texts
