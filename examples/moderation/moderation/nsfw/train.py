"""`python -m moderation.nsfw.train`: train the model of the probability that a video is not safe for work."""

from moderation.text_model import text_task
from moderation.training import training_command

NSFW = text_task("nsfw")

main = training_command(NSFW)

if __name__ == "__main__":
    main(prog_name="python -m moderation.nsfw.train")
