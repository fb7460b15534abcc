"""`braidstream health`: what a container's health check asks."""

from __future__ import annotations

from pathlib import Path

import click

from braidstream.health import check


@click.command()
@click.option(
    "--file",
    "path",
    envvar="HEALTH_FILE",
    show_envvar=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Where the worker writes its state.",
)
def health(path: Path) -> None:
    """Tell whether the worker beside which this runs is ready: it polls, and has restored what it needs.

    A worker that was given no partition is ready. Exits with 0 when it is ready, with 1 when it is not.

    \b
    Examples:
      HEALTH_FILE=/tmp/health.json braidstream health
      docker compose exec duration braidstream health
    """
    click.echo(check(path))
