"""A model and its features together: events in, values out. The stream, HTTP and batch all score by this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from braidstream.avro import E
from braidstream.errors import SettingsError
from braidstream.models.features import FeatureSet
from braidstream.models.folder import Feature
from braidstream.models.loading import Model


class Scorer(Generic[E]):
    """Scores events; raises `SettingsError` at once when the model was made for other features."""

    def __init__(self, model: Model, features: FeatureSet[E]) -> None:
        if model.card.features != features.described:
            raise SettingsError(
                f"model {model.name} {model.version} was made for other features: it takes "
                f"{_listed(model.card.features)}; here are {_listed(features.described)}: train it again"
            )
        self.model = model
        self._features = features

    def __call__(self, events: Sequence[E]) -> NDArray[np.float64]:
        """One value an event, in order, in shape (n,); a model may give values that are not finite."""
        return self.model.predict(self._features.matrix(events)) if len(events) else np.empty(0)


def _listed(features: Sequence[Feature]) -> str:
    return ", ".join(f"{feature.name} ({feature.type})" for feature in features)
