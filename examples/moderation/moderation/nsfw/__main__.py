"""The nsfw service: `python -m moderation.nsfw`."""

from braidstream import run_scorer
from moderation.pipeline import MODERATION
from moderation.text_features import TEXT

if __name__ == "__main__":
    run_scorer(MODERATION, "nsfw", TEXT, train_with="python -m moderation.nsfw.train")
