"""`python -m moderation.uploader`: upload made videos."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import click

from braidstream import Settings, open_writer
from braidstream.cli import in_sentences
from moderation.pipeline import MODERATION
from moderation.synthetic.uploads import make_uploads


@click.command()
@click.option("--count", type=click.IntRange(1), default=1000, show_default=True, help="How many videos.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=100.0, show_default=True, help="A second.")
@click.option("--seed", default=2, show_default=True, help="The same seed gives the same videos; models learn from 1.")
def main(count: int, rate: float, seed: int) -> None:
    """Upload made videos, to KAFKA_BOOTSTRAP_SERVERS."""
    with in_sentences(click.get_current_context()), open_writer(MODERATION.subjects, Settings.load()) as writer:
        begin = time.monotonic()
        for number, upload in enumerate(make_uploads(count, seed)):
            while (early := begin + number / rate - time.monotonic()) > 0:
                writer.poll(early)
            writer.send(upload.event.model_copy(update={"uploaded_at": datetime.now(UTC)}))
    click.echo(f"{count:,} videos uploaded")


if __name__ == "__main__":
    main(prog_name="python -m moderation.uploader")
