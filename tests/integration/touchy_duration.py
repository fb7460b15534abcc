"""The duration worker with a mistake: it fails for rides that begin in the zone FAILING_ZONE."""

from __future__ import annotations

import os

from braidstream.columns import Columns
from braidstream.models.features import FeatureSet, Matrix
from braidstream.run import run_scorer
from consumers.duration.features import FEATURES
from rides.pipeline import RIDES

ZONE = int(os.environ["FAILING_ZONE"])


def build(rides: Columns) -> Matrix:
    """The features, if no ride begins in the zone."""
    if (rides["pickup_zone"] == ZONE).any():
        raise LookupError(f"no features for zone {ZONE}")
    return FEATURES.build(rides)


if __name__ == "__main__":
    run_scorer(RIDES, "duration", FeatureSet(FEATURES.names, build))
