"""The copyright service: `python -m moderation.copyright`."""

from braidstream import run_scorer
from moderation.copyright.features import FEATURES, TRUSTED
from moderation.pipeline import MODERATION

if __name__ == "__main__":
    run_scorer(MODERATION, "copyright", FEATURES, train_with="python -m moderation.copyright.train", trusted=TRUSTED)
