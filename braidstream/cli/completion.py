"""`braidstream completion`: what completes this command line in a shell, and what is offered for its arguments."""

from __future__ import annotations

import logging

import click
from click.shell_completion import get_completion_class

from braidstream.cli import plugins
from braidstream.errors import SettingsError

_PATIENCE = 1.0
"""Seconds that somebody who has pressed Tab waits for a broker."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes `braidstream` in SHELL: commands, options, topics, groups and pipelines.

    Groups are asked of the broker that KAFKA_BOOTSTRAP_SERVERS names; without one, none are offered.

    \b
    Examples, for ~/.bashrc, ~/.zshrc and once for fish:
      eval "$(braidstream completion bash)"
      eval "$(braidstream completion zsh)"
      braidstream completion fish > ~/.config/fish/completions/braidstream.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    script = found(ctx.find_root().command, {}, "braidstream", "_BRAIDSTREAM_COMPLETE").source()
    click.echo(script)


def topics(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The topics of the chosen pipeline, or of every one that is installed."""
    try:
        names = plugins.topic_names(ctx.params.get("pipeline_name"))
    except SettingsError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def groups(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The groups of the broker whose names begin with TOPIC_PREFIX, without it."""
    from confluent_kafka import KafkaException

    from braidstream.logs import client_logger
    from braidstream.settings import Settings
    from braidstream.streaming import clients

    client_logger().setLevel(logging.CRITICAL)
    try:
        settings = Settings.load()
        client = clients.admin(settings)  # it ends, and answers nothing, when nobody has it any more
        listed = client.list_consumer_groups(request_timeout=_PATIENCE).result()
    except (SettingsError, KafkaException):
        return []
    prefix = settings.named("")
    names = sorted(group.group_id for group in listed.valid if group.group_id.startswith(prefix))
    return [name for name in (name.removeprefix(prefix) for name in names) if name.startswith(incomplete)]
