"""`braidstream lag`: what the consumer groups of a pipeline have not processed yet."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from contextlib import closing, nullcontext
from datetime import UTC, datetime

import click

from braidstream import logs
from braidstream.cli import completion, lag_views, plugins, tables
from braidstream.cli.errors import sigterm_ends
from braidstream.cli.groups import FirstRecords, Groups, Snapshot, look
from braidstream.cli.reading import partitions_of
from braidstream.cli.records import to_seconds
from braidstream.errors import SettingsError, UnavailableError
from braidstream.settings import Settings
from braidstream.streaming import clients

_EVERY = 2.0
"""Seconds between two looks with `--follow`."""


def _group(text: str) -> str:
    """A group's name, as a type of click's: others would end the process in the client."""
    if not text or text != text.encode(errors="ignore").decode():
        raise click.BadParameter(f"{text!r} is no name of a group")
    return text


@click.command()
@click.argument("names", type=_group, metavar="[GROUP]...", nargs=-1, shell_complete=completion.groups)
@click.option("--partitions", "is_detailed", is_flag=True, help="A line for each partition, as with a GROUP.")
@click.option("--follow", is_flag=True, help="Look again every two seconds, until Ctrl-C.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object; with --follow one a line.")
@plugins.pipeline_option
def lag(*, names: tuple[str, ...], is_detailed: bool, follow: bool, is_json: bool, pipeline_name: str | None) -> None:
    """Show how far the consumer groups are behind, and who their members are.

    These are the groups that have committed in the pipeline's topics or have members on them; with GROUP, named with
    TOPIC_PREFIX or without it, those alone, partition by partition. LAG is in records, up to where a reader of
    committed records gets; markers of transactions between them count too. BEHIND is how long ago the first record was
    written that is not processed. Where records are gone before they were processed, `braidstream doctor` says what to
    do. The embedded broker does not list its groups: name them.

    \b
    Examples:
      braidstream lag
      braidstream lag duration
      braidstream lag --follow
      braidstream lag --json | jq '.groups[] | select(.members == 0).group'
    """
    settings = Settings.load()
    logs.configure(settings.log_level, settings.log_format)
    partitions = partitions_of(plugins.pipeline(pipeline_name), settings)
    wanted = {name for given in names for name in (given, settings.named(given))}
    is_detailed = is_detailed or bool(names)

    def show(seen: Snapshot) -> Iterable[str]:
        if is_json:
            return [json.dumps(lag_views.as_json(seen, detailed=is_detailed))]
        lines = _lines(seen, is_detailed)
        return [f"{to_seconds(seen.at)} UTC", *lines, ""] if follow else lines

    ending = sigterm_ends() if follow else nullcontext()
    with ending, closing(FirstRecords(settings)) as first_records:

        def now() -> Snapshot:
            # See `clients.BrokerLogEnds`: an old client may go on asking in vain.
            return look(Groups(clients.admin(settings), wanted), first_records, partitions)

        seen = now()
        _refuse_unknown(settings, names, seen)
        if follow:
            _follow(lambda: show(now()), is_json=is_json)
        else:
            click.echo("\n".join(show(seen)))


def _refuse_unknown(settings: Settings, names: Iterable[str], seen: Snapshot) -> None:
    found = {group.name for group in seen.groups}
    for name in names:
        if found.isdisjoint((name, settings.named(name))):
            raise SettingsError(
                f"there is no group {name} that has committed in the pipeline's topics or has members on them: has it "
                "started, and is TOPIC_PREFIX right?"
            )


def _lines(seen: Snapshot, is_detailed: bool) -> list[str]:
    if not seen.groups:
        return ["No group has committed in these topics or has members on them."]
    if is_detailed:
        return list(tables.lines(lag_views.PARTITION_COLUMNS, lag_views.partitions(seen)))
    return list(tables.lines(lag_views.COLUMNS, lag_views.summary(seen)))


def _follow(lines_now: Callable[[], Iterable[str]], *, is_json: bool) -> None:
    """Show every two seconds what there is, or why it cannot be told: a broker that is away may come back."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from braidstream.dashboard.terminal import can_show

    console = Console()
    in_place = can_show(console) and not is_json
    with Live(console=console, auto_refresh=False) if in_place else nullcontext() as live:
        while True:
            try:
                shown, is_error = "\n".join(lines_now()), False
            except UnavailableError as error:
                shown, is_error = f"{to_seconds(datetime.now(UTC))} UTC  {error}", True
            if live is not None:
                live.update(Text(shown), refresh=True)
            else:
                click.echo(shown, err=is_error)
            time.sleep(_EVERY)
