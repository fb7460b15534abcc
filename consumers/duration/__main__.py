"""The duration consumer: `python -m consumers.duration`."""

from braidstream import run_scorer
from consumers.duration.features import FEATURES
from rides.pipeline import RIDES

if __name__ == "__main__":
    run_scorer(RIDES, "duration", FEATURES, train_with="python -m consumers.duration.train --trips FILE")
