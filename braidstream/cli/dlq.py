"""`braidstream dlq`: look at dead letters, and send them back to where they came from."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple, TypeVar

import click

from braidstream import logs
from braidstream.cli import completion, letter_views, letters, plugins, tables
from braidstream.cli.letters import LetterBox, Selection
from braidstream.cli.reading import TopicReader
from braidstream.cli.records import Decoder, as_json, printable
from braidstream.cli.resending import Outlook, Plan
from braidstream.errors import BraidstreamError, SettingsError
from braidstream.pipelines import Pipeline
from braidstream.registry import schemas_for
from braidstream.settings import Settings
from braidstream.streaming import clients
from braidstream.streaming.replay import Letter, Place, Replay, replayed_by

F = TypeVar("F", bound=Callable[..., Any])

_FILTERS = (
    click.option(
        "--group",
        metavar="GROUP",
        shell_complete=completion.groups,
        help="Only those of this group, such as duration.",
    ),
    click.option("--reason", metavar="TEXT", help="Only those with this text in exception, stage or message."),
    click.option(
        "--since", type=letters.time, metavar="TIME", help="Only from this time on: ISO 8601 (UTC), or 2h ago."
    ),
    click.option("--until", type=letters.time, metavar="TIME", help="Only before this time; 2h is two hours ago."),
    click.option(
        "--at",
        "places",
        type=letters.place,
        multiple=True,
        metavar="LETTER",
        help="Only this one, as in 3:17; repeatable.",
    ),
    plugins.pipeline_option,
)


def _filtered(command: F) -> F:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


class _Opened(NamedTuple):
    settings: Settings
    pipeline: Pipeline[Any]
    reader: TopicReader

    def selection(self, *, group: str | None, places: Sequence[Place], **others: Any) -> Selection:
        """A group may be named with TOPIC_PREFIX or without it."""
        groups = (group, self.settings.named(group)) if group is not None else ()
        return Selection(groups, places=frozenset(places), **others)

    def partitions(self) -> dict[str, int]:
        """How many those topics have that are there and that workers read."""
        read = {self.settings.named(topic.name) for topic in (self.pipeline.subjects, self.pipeline.predictions)}
        return {name: count for name, count in self.reader.partitions.items() if name in read}


@contextmanager
def _opened(pipeline_name: str | None) -> Iterator[_Opened]:
    settings = Settings.load()
    logs.configure(settings.log_level, settings.log_format)
    pipeline = plugins.pipeline(pipeline_name)
    with closing(clients.stretch_reader(settings, settings.named("dlq"))) as consumer:
        yield _Opened(settings, pipeline, TopicReader(consumer, settings, settings.named(pipeline.dead_letters)))


@click.group()
def dlq() -> None:
    """Look at dead letters, and send them back to where they came from.

    \b
    Examples:
      braidstream dlq list --since 2h
      braidstream dlq show 3:17
      braidstream dlq replay --group duration --reason ValueError --dry-run
    """


@dlq.command("list")
@_filtered
@click.option("--summary", is_flag=True, help="Count them by group, stage and exception instead.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object a line.")
def list_(*, pipeline_name: str | None, summary: bool, is_json: bool, **chosen_by: Any) -> None:
    """Show dead letters, one a line, those of one partition in order.

    LETTER is where it is in the topic of dead letters, FROM where the record came from, both as partition:offset.
    ATTEMPTS says how often it had been sent back before it failed again, REPLAYED when this one was sent back. In a
    pipe the parts of a line are separated by tabs.

    \b
    Examples:
      braidstream dlq list --summary
      braidstream dlq list --group duration --reason zone --since 2026-01-31T12:00 --until 1h
      braidstream dlq list --json | jq -r 'select(.replayed | not) | .letter'
    """
    with _opened(pipeline_name) as opened:
        chosen = opened.selection(**chosen_by)
        box = LetterBox(opened.reader, chosen.places)
        replayed = box.replayed()
        found = filter(chosen.takes, box.letters())
        if summary:
            counts = letter_views.counted(found, replayed)
            columns, rows = letter_views.COUNT_COLUMNS, (count.as_row() for count in counts)
            objects = (count.as_json() for count in counts)
        else:
            columns, rows = letter_views.COLUMNS, (letter_views.as_row(letter, replayed) for letter in found)
            objects = (letter_views.as_json(letter, replayed) for letter in found)
        for line in map(json.dumps, objects) if is_json else tables.lines(columns, rows):
            click.echo(line)


@dlq.command()
@click.argument("place", type=letters.place, metavar="LETTER")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
@plugins.pipeline_option
def show(*, place: Place, is_json: bool, pipeline_name: str | None) -> None:
    """Show everything of one dead letter.

    LETTER is its place in the topic, as `braidstream dlq list` shows it. The value is decoded where
    that can be done; else the reason is given and its first bytes (with --json all of them, as base64).

    \b
    Example:
      braidstream dlq show 3:17
    """
    with _opened(pipeline_name) as opened:
        box = LetterBox(opened.reader, [place])
        message = box.record(place)
        if message is None:
            raise SettingsError(f"{opened.reader.name} has no record at {place}, or no more")
        if (sent := replayed_by(message)) is not None:
            raise SettingsError(f"{place} is no dead letter: it notes that {sent} was sent back")
        decode = Decoder(schemas_for(opened.settings, [topic.event_type for topic in opened.pipeline.topics]))
        letter, record, replayed = Letter.of(message), decode(message), box.replayed()
        if is_json:
            said = letter_views.as_json(letter, replayed) | {"stack_trace": letter.stack_trace or None}
            click.echo(json.dumps(as_json(record) | said))
        else:
            for line in letter_views.in_full(letter, replayed, record):
                click.echo(line)


@dlq.command()
@_filtered
@click.option("--all", "takes_all", is_flag=True, help="Every dead letter: to be said where no filter is given.")
@click.option(
    "--max-attempts",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="Leave out what was sent back N times and failed each time.",
)
@click.option("--dry-run", is_flag=True, help="Say what would become of each dead letter, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask first: needed where there is no terminal.")
def replay(
    *, pipeline_name: str | None, takes_all: bool, max_attempts: int, dry_run: bool, yes: bool, **chosen_by: Any
) -> None:
    """Send dead letters back to the topic and partition that they came from.

    Only the group whose dead letter it is processes such a record: the others of its topic skip it. Each is sent once,
    also when two replays run at the same time: the later one ends the earlier one. What fails again becomes a new dead
    letter, whose ATTEMPTS has grown. Exits with 1 when something that was chosen cannot be sent back.

    \b
    Examples:
      braidstream dlq replay --group duration --reason ValueError --dry-run
      braidstream dlq replay --group duration --since 2h --yes
      braidstream dlq replay --at 3:17 --at 3:18
    """
    _refuse_what_is_unclear(takes_all, chosen_by, is_asked=not (dry_run or yes))
    with _opened(pipeline_name) as opened:
        if opened.reader.is_embedded:
            raise SettingsError("the embedded broker keeps no transactions: nothing can be sent back just once")
        chosen = opened.selection(**chosen_by)
        box = LetterBox(opened.reader, chosen.places)
        plan = Plan(box, chosen, opened.partitions(), max_attempts)
        outlook = Outlook()
        for step in plan.steps(box.replayed()):
            outlook.add(step)
            if dry_run or step.is_obstacle:
                click.echo(str(step))
        for line in outlook.lines():
            click.echo(line)
        is_whole = not outlook.obstacles
        if not dry_run and outlook.to_send:
            if not yes:
                click.confirm("Go on?", abort=True)
            is_whole &= _send(opened, box, plan, outlook.to_send)
    if not is_whole:
        sys.exit(1)


def _send(opened: _Opened, box: LetterBox, plan: Plan, expected: int) -> bool:
    """Whether the broker took everything."""
    name = opened.reader.name
    producer = clients.transactional_producer(opened.settings, opened.settings.named("dlq"), f"{name}-replay")
    with closing(Replay(producer, name, opened.settings.broker_timeout)) as resender:
        resender.begin()
        try:
            steps = plan.steps(box.replayed())
            resender.send(step.letter for step in steps if step.letter is not None and step.left_out is None)
        except BraidstreamError:
            click.echo(f"Sent back {resender.sent} of {expected} before this ended.")
            raise
    for place, why in resender.refused.items():
        click.echo(f"{place}  left out: {printable(why)}")
    click.echo(f"Sent back {resender.sent} of {expected}.")
    if (others := expected - resender.sent - len(resender.refused)) > 0:
        click.echo(f"{others} left out: another replay sent them back meanwhile")
    return not resender.refused


def _refuse_what_is_unclear(takes_all: bool, chosen_by: dict[str, Any], *, is_asked: bool) -> None:
    if takes_all == any(chosen_by.values()):
        raise click.UsageError(
            "--all goes with no filter"
            if takes_all
            else "choose with --group, --reason, --since, --until or --at, or say --all"
        )
    if is_asked and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on: say --yes, or look first with --dry-run")
