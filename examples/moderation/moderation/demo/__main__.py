"""`python -m moderation.demo`: starts everything, uploads videos, and says what came of it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from braidstream.demo import Show, play, running
from braidstream.training import is_model, read_card
from moderation.copyright.train import COPYRIGHT
from moderation.demo.notified import Notified
from moderation.demo.story import SERVICES, Story
from moderation.demo.summary import Summary, summarize
from moderation.notifications.train import NOTIFICATIONS as NOTIFY
from moderation.nsfw.train import NSFW
from moderation.pipeline import MODERATION, NOTIFICATIONS, NOTIFIED
from moderation.synthetic.uploads import Upload, make_uploads
from moderation.violence.train import VIOLENCE

_SEED = 2
"""Models learn from another."""


@click.command(
    help="""Upload made videos, and watch them become decisions and notifications.

    It starts librdkafka's embedded broker, or uses KAFKA_BOOTSTRAP_SERVERS; trains the models that are not there;
    starts two workers of the nsfw service and one of everything else; uploads videos, and takes the violence service
    away for some of them; and ends with a summary. Exits with 1 when a video was not decided.

    \b
    Examples:
      python -m moderation.demo
      python -m moderation.demo --videos 10000 --rate 500
      KAFKA_BOOTSTRAP_SERVERS=localhost:9092 python -m moderation.demo --json
    """
)
@click.option(
    "--videos", type=click.IntRange(20, 200_000), default=3000, show_default=True, metavar="N", help="Upload N videos."
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=200.0,
    show_default=True,
    metavar="N",
    help="Videos a second.",
)
@click.option(
    "--deadline",
    envvar="DECISION_DEADLINE",
    show_envvar=True,
    type=click.FloatRange(0, min_open=True),
    default=4.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a decision waits for a service.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on the last line.")
@click.option("--plain", is_flag=True, help="Plain lines instead of a dashboard, as where stderr is no terminal.")
def main(videos: int, rate: float, deadline: float, as_json: bool, plain: bool) -> None:
    """Run the demo; see the command's help."""
    play(lambda show: _run(videos, rate, deadline, show), as_json=as_json, plain=plain)


def _run(videos: int, rate: float, deadline: float, show: Show) -> Summary:
    _train(show)
    uploads = _uploads(videos)
    notified = Notified()
    also = (NOTIFICATIONS, notified.notification), (NOTIFIED, lambda handled: notified.videos.add(handled.subject_id))
    with running(MODERATION, SERVICES, show, *also) as run:
        Story(run, notified, rate, deadline, show).tell([upload.event for upload in uploads])
    return summarize(uploads, run.sent_at, run.seen, notified, deadline)


def _train(show: Show) -> None:
    """Train the models that are not there."""
    for task in (NSFW, VIOLENCE, COPYRIGHT, NOTIFY):
        folder = Path("models", task.name)
        if not is_model(folder):
            show.line(f"training {task.name}")
            task.train(folder)
        show.line(f"{task.name}: model {read_card(folder).version} in {folder}")


def _uploads(count: int) -> Sequence[Upload]:
    """Made videos, under ids of their own so that a broker that knows them decides them again."""
    run = uuid.uuid4().hex[:8]

    def renamed(number: int, upload: Upload) -> Upload:
        return replace(upload, event=upload.event.model_copy(update={"video_id": f"{number:05}-{run}"}))

    return [renamed(number, upload) for number, upload in enumerate(make_uploads(count, _SEED))]


if __name__ == "__main__":
    main(prog_name="python -m moderation.demo")
