"""The spam service: `python -m moderation.spam`."""

from braidstream import run_scorer
from moderation.pipeline import MODERATION
from moderation.text_features import TEXT

if __name__ == "__main__":
    run_scorer(MODERATION, "spam", TEXT, train_with="python -m moderation.spam.train")
