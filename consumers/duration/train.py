"""`python -m consumers.duration.train`: train the model that predicts how many minutes a ride takes."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from sklearn.ensemble import HistGradientBoostingRegressor

from braidstream.training import ModelCard
from consumers.duration.features import FEATURES
from consumers.ride_training import RideTask, training_command
from producer.trips import Trips

_MINUTES = (pl.col("dropoff_at") - pl.col("pickup_at")).dt.total_milliseconds() / 60_000

DURATION = RideTask(
    name="duration",
    unit="minutes",
    rides="rides of 1 to 60 minutes",
    outcome=_MINUTES,
    counts=_MINUTES.is_between(1, 60),
    features=FEATURES,
    # Few big trees: half the time a ride of scikit-learn's default of 100 trees with 31 leaves, and smaller errors.
    estimator=HistGradientBoostingRegressor(
        max_iter=40, max_leaf_nodes=127, learning_rate=0.2, early_stopping=False, random_state=0
    ),
)


def train(trips: Trips, model_uri: Path, *, earliest: float = 1.0, replace: bool = False) -> ModelCard:
    """Train on the earliest share of trips read with outcomes, and write the model; see `RideTask.train`."""
    return DURATION.train(trips, model_uri, earliest=earliest, replace=replace)


main = training_command(DURATION)

if __name__ == "__main__":
    main(prog_name="python -m consumers.duration.train")
