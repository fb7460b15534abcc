"""`python -m moderation.spam.train`: train the model of the probability that a video is spam."""

from moderation.text_model import text_task
from moderation.training import training_command

SPAM = text_task("spam")

main = training_command(SPAM)

if __name__ == "__main__":
    main(prog_name="python -m moderation.spam.train")
