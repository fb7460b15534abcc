"""`python -m consumers.tip.train`: train the model that predicts the tip of a ride that is paid by card."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from sklearn.ensemble import HistGradientBoostingRegressor

from braidstream.training import ModelCard
from consumers.ride_training import RideTask, training_command
from consumers.tip.features import FEATURES
from producer.trips import Trips

CARD = 1
"""TLC's payment type for cards; tips in cash are not recorded."""

TIP = RideTask(
    name="tip",
    unit="dollars",
    rides="card trips with a tip of 0 or more",
    outcome=pl.col("tip_amount"),
    counts=(pl.col("payment_type") == CARD) & (pl.col("tip_amount") >= 0),
    features=FEATURES,
    estimator=HistGradientBoostingRegressor(
        max_iter=30, max_leaf_nodes=63, min_samples_leaf=50, learning_rate=0.15, early_stopping=False, random_state=0
    ),
    # One ride in 1,200 has a higher tip, up to 222 dollars; learned as they are, those would bend whole leaves.
    outcome_limit=30.0,
)


def train(trips: Trips, model_uri: Path, *, earliest: float = 1.0, replace: bool = False) -> ModelCard:
    """Train on the earliest share of trips read with outcomes, and write the model; see `RideTask.train`."""
    return TIP.train(trips, model_uri, earliest=earliest, replace=replace)


main = training_command(TIP)

if __name__ == "__main__":
    main(prog_name="python -m consumers.tip.train")
