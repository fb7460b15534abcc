"""The demo: trips in, decisions out, in one command.

What it needs is imported when it is called: `braidstream --help` only asks for its first line.
"""

from pathlib import Path

import click

__all__ = ["demo"]


@click.command(
    "demo",
    help="""Replay trips through the whole pipeline and watch them become decisions.

    It starts librdkafka's embedded broker, or uses KAFKA_BOOTSTRAP_SERVERS; trains the models on the earliest 30 % of
    the trips if there are none; starts two workers of each model and the decision service; replays the trips; and
    ends with a summary. Exits with 1 when a ride was not decided.

    \b
    Examples:
      braidstream demo
      braidstream demo --trips green_tripdata_2023-02.parquet --rides 20000
      KAFKA_BOOTSTRAP_SERVERS=localhost:9092 braidstream demo --json
    """,
)
@click.option(
    "--trips",
    "files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A month of TLC trips; repeatable. Without it, synthetic trips.",
)
@click.option("--rides", "limit", type=click.IntRange(1), metavar="N", help="Send N rides, those after the training.")
@click.option(
    "--rate",
    type=click.FloatRange(0),
    default=2000.0,
    show_default=True,
    metavar="N",
    help="Rides a second; 0 sends them as fast as they are read.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on the last line.")
@click.option("--plain", is_flag=True, help="Plain lines instead of a dashboard, as where stderr is no terminal.")
def demo(files: tuple[Path, ...], limit: int | None, rate: float, as_json: bool, plain: bool) -> None:
    """Run the demo; see the command's help."""
    from braidstream.demo import play
    from rides.demo.command import run_demo

    play(lambda show: run_demo(files, limit, rate, show), as_json=as_json, plain=plain)
