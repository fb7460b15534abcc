"""`python -m tests.faults`: break the ride pipeline on real Kafka for a while, and say what became of every ride."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import get_args

import click
from testcontainers.core.network import Network

from braidstream.settings import Guarantee
from producer.sample import write_sample
from tests.containers import run_hasty_kafka
from tests.faults import report
from tests.faults.fleet import DECIDER, SCORERS
from tests.faults.run import at_random, execute
from tests.faults.world import Setting, running
from tests.integration.ride_pipeline import train_models

_PROTOCOLS = ("classic", "consumer")


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), default=600.0, show_default=True, help="How long to break.")
@click.option("--seed", type=int, default=None, help="Which faults, in which order. Default: a new one.")
@click.option("--protocol", type=click.Choice(_PROTOCOLS), default="classic", show_default=True, help="Of the groups.")
@click.option("--guarantee", type=click.Choice(get_args(Guarantee)), default="exactly_once", show_default=True)
@click.option("--rate", type=float, default=200.0, show_default=True, help="Rides a second.")
@click.option("--keep", is_flag=True, help="Keep the logs of the workers also when all is well.")
@click.option("--markdown", type=click.Path(path_type=Path), default=None, help="Write the report to this file, too.")
def main(
    *,
    seconds: float,
    seed: int | None,
    protocol: str,
    guarantee: Guarantee,
    rate: float,
    keep: bool,
    markdown: Path | None,
) -> None:
    """Exits with 1 when anything was lost, done twice or wrong; the logs of the workers are kept then."""
    chosen = seed if seed is not None else random.randrange(1_000_000)
    setting = Setting(guarantee, dict.fromkeys((*SCORERS, DECIDER), protocol), chosen, rate)
    click.echo(f"breaking the pipeline for {seconds:g} s, seed {chosen}")
    folder = Path(tempfile.mkdtemp(prefix="braidstream-chaos-"))
    write_sample(folder / "trips.parquet", 20_000, seed=7, month="2024-03")
    train_models(folder / "trips.parquet", folder / "models")
    logs = folder / "logs"
    logs.mkdir()
    with (
        Network() as network,
        run_hasty_kafka(network) as broker,
        running(setting, broker, "chaos-", folder / "models", logs) as world,
    ):
        outcome = execute(world, at_random(chosen, seconds), folder / "models", logs)
    click.echo(report.text(outcome))
    if markdown is not None:
        markdown.write_text(report.markdown([outcome]))
    if not (outcome.failures or keep):
        shutil.rmtree(folder)
        return
    (folder / "failures.txt").write_text("\n".join(outcome.failures))
    click.echo(f"the logs are in {folder / 'logs'}, the failures in {folder / 'failures.txt'}")
    sys.exit(1 if outcome.failures else 0)


if __name__ == "__main__":
    main(prog_name="python -m tests.faults")
