"""The command line `braidstream`.

Each command is imported when it is called: `braidstream health` runs every few seconds beside every worker.
"""

from __future__ import annotations

import importlib
from typing import Any

import click
from click.shell_completion import CompletionItem

from braidstream.cli import plugins
from braidstream.cli.errors import in_sentences

__all__ = ["in_sentences", "main"]

_COMMANDS = {
    "broker": "braidstream.cli.broker:broker",
    "completion": "braidstream.cli.completion:completion",
    "dlq": "braidstream.cli.dlq:dlq",
    "doctor": "braidstream.cli.doctor:doctor",
    "health": "braidstream.cli.health:health",
    "lag": "braidstream.cli.lag:lag",
    "new": "braidstream.cli.new:new",
    "rescore": "braidstream.cli.rescore:rescore",
    "tail": "braidstream.cli.tail:tail",
    "top": "braidstream.cli.top:top",
    "topics": "braidstream.cli.topics:topics",
    "trace": "braidstream.cli.trace:trace",
}


class _Commands(click.Group):
    """The commands of this package, then those that the installed packages bring."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*_COMMANDS, *plugins.command_names()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS:
            module, _, name = _COMMANDS[cmd_name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), name)
            return command
        return plugins.command(cmd_name)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names alone: for what they do, every command would be imported while somebody waits."""
        names = [CompletionItem(name) for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        with in_sentences(ctx):
            return super().invoke(ctx)


@click.group(cls=_Commands)
@click.version_option(package_name="braidstream")
def main() -> None:
    """Machine-learning models on Kafka: one event, many independent models, one decision.

    Kafka is found by KAFKA_BOOTSTRAP_SERVERS, the schema registry by SCHEMA_REGISTRY_URL. Any property of librdkafka
    passes through: KAFKA_SASL_USERNAME is sasl.username.

    \b
    Examples:
      braidstream topics create
      braidstream tail decisions
      braidstream dlq list --summary
    """
