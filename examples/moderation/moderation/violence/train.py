"""`python -m moderation.violence.train`: train the model of the probability that a video shows violence."""

from moderation.text_model import text_task
from moderation.training import training_command

VIOLENCE = text_task("violence")

main = training_command(VIOLENCE)

if __name__ == "__main__":
    main(prog_name="python -m moderation.violence.train")
