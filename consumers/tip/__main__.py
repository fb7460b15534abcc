"""The tip consumer: `python -m consumers.tip`."""

from braidstream import run_scorer
from consumers.tip.features import FEATURES
from rides.pipeline import RIDES

if __name__ == "__main__":
    run_scorer(RIDES, "tip", FEATURES, train_with="python -m consumers.tip.train --trips FILE")
