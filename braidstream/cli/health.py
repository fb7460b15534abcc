"""`braidstream health`: what a container's health check asks."""

from __future__ import annotations

import click

from braidstream.errors import UnavailableError
from braidstream.watching.client import address_of, ask

_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what the worker listens at
"""Addresses that stand for every one of the machine's."""


@click.command()
@click.option(
    "--port",
    envvar="HTTP_PORT",
    show_envvar=True,
    required=True,
    type=click.IntRange(1, 65535),
    help="Where the worker answers.",
)
@click.option(
    "--host", envvar="HTTP_HOST", show_envvar=True, default="127.0.0.1", show_default=True, help="At which address."
)
def health(port: int, host: str) -> None:
    """Tell whether the worker that answers at this port is ready: it polls, and has what it needs.

    A worker that was given no partition is ready. Exits with 0 when it is ready, with 1 when it is not.

    \b
    Examples:
      HTTP_PORT=8000 braidstream health
      docker compose exec duration braidstream health
    """
    answer = ask(address_of(_ANYWHERE.get(host, host), port))
    if not answer.ready:
        why = "; ".join(f"{check}: {reason}" for check, reason in answer.reasons.items())
        raise UnavailableError(f"the worker is not ready: {why}")
    click.echo(f"ready, with {answer.partitions} partitions")
