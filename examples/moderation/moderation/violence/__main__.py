"""The violence service: `python -m moderation.violence`."""

from braidstream import run_scorer
from moderation.pipeline import MODERATION
from moderation.text_features import TEXT

if __name__ == "__main__":
    run_scorer(MODERATION, "violence", TEXT, train_with="python -m moderation.violence.train")
