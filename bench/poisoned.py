"""The duration worker with a feature that fails: `python -m bench.poisoned`, as `python -m consumers.duration`."""

from __future__ import annotations

from braidstream.columns import Columns
from braidstream.models.features import FeatureSet, Matrix
from braidstream.run import run_scorer
from consumers.duration.features import FEATURES
from rides.pipeline import RIDES

TOO_MANY = 1_000_000
"""Passengers: what the contract allows, and the feature does not."""


def build(rides: Columns) -> Matrix:
    """The duration model's features; raises when one of the rides has too many passengers."""
    matrix = FEATURES.build(rides)
    if (rides["passenger_count"] == TOO_MANY).any():
        raise ValueError("a ride of a million passengers")
    return matrix


if __name__ == "__main__":
    run_scorer(RIDES, "duration", FeatureSet(FEATURES.names, build))
