"""The decision service of uploads: `python -m moderation.decisions`."""

from braidstream import run_decisions
from moderation.decisions.policy import ModerationSettings, moderation_policy
from moderation.pipeline import MODERATION

if __name__ == "__main__":
    run_decisions(MODERATION, "moderation", moderation_policy, ModerationSettings)
