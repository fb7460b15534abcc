"""`braidstream rescore`: a model's group goes back, so that a new version scores again what is in the topic."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, Literal

import click
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from rich.console import Console

from braidstream import logs
from braidstream.cli import completion, letters, plugins, tables
from braidstream.cli.groups import FirstRecords, Group, Groups, Stretch
from braidstream.cli.reading import TopicReader
from braidstream.cli.records import Decoder, Record, is_of
from braidstream.cli.rewinding import COLUMNS, Rewind, check_time, rewinds, running, the_group, versions
from braidstream.errors import FatalError, SettingsError
from braidstream.models.folder import folder_of, is_model, read_card
from braidstream.pipelines import Pipeline
from braidstream.registry import schemas_for
from braidstream.settings import ScoringSettings
from braidstream.streaming import clients
from braidstream.streaming.ports import Partition

_BACK = 1000
_TIMEOUT = 30.0


def _start(text: str) -> datetime | Literal["beginning"]:
    return "beginning" if text == "beginning" else letters.time(text)


@click.command()
@click.option(
    "--group",
    "group_name",
    required=True,
    metavar="GROUP",
    shell_complete=completion.groups,
    help="The group of a model, such as duration.",
)
@click.option(
    "--from",
    "start",
    type=_start,
    required=True,
    metavar="TIME",
    help="From when on: ISO 8601 (UTC), 2h for two hours ago, or beginning.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be scored again, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask first: needed where there is no terminal.")
@plugins.pipeline_option
def rescore(
    *,
    group_name: str,
    start: datetime | Literal["beginning"],
    dry_run: bool,
    yes: bool,
    pipeline_name: str | None,
) -> None:
    """Let a new version of a model score again what is in the topic of events.

    The group goes back there. Its workers have to be stopped before, and started with the new model after. The old
    predictions stay: model_version tells them apart. Decisions that were made keep to the first prediction of each
    model; one that missed this model is revised.

    The workers score what is old before what is new. Until they have caught up, decisions are made without them.

    \b
    Examples:
      docker compose stop duration
      braidstream rescore --group duration --from 2h --dry-run
      braidstream rescore --group duration --from beginning --yes
    """
    if not (dry_run or yes or sys.stdin.isatty()):
        raise click.UsageError("there is no terminal to ask on: say --yes, or look first with --dry-run")
    settings = ScoringSettings.load()
    logs.configure(settings.log_level, settings.log_format)
    pipeline = plugins.pipeline(pipeline_name)
    with closing(clients.stretch_reader(settings, settings.named("rescore"))) as consumer:
        scored = _Scored(settings, pipeline, TopicReader(consumer, settings, settings.named(pipeline.subjects.name)))
        group = scored.group(group_name)
        why_not = running(group)
        if why_not is not None and not dry_run:
            raise SettingsError(why_not)
        plan = scored.plan(group, start)
        if why_not is not None:
            click.echo(textwrap.fill(f"Before that: {why_not}.", shutil.get_terminal_size().columns))
        if not plan or dry_run:
            return
        if not yes:
            click.confirm("Go on?", abort=True)
        scored.move(group.name, plan)
    click.echo(f"{group.name} goes on from there: start its workers, with the new model.")


class _Scored:
    """What a model's group has scored of the subjects' topic."""

    def __init__(self, settings: ScoringSettings, pipeline: Pipeline[Any], reader: TopicReader) -> None:
        if reader.is_embedded:
            raise SettingsError("the embedded broker keeps nothing for long, and does not tell its groups: use Kafka")
        self._settings = settings
        self._pipeline = pipeline
        self._reader = reader
        self._predictions = reader.of(settings.named(pipeline.predictions.name))
        self._client = clients.admin(settings)

    def group(self, name: str) -> Group:
        """The group of this name; raises `SettingsError` when it is not that of a model."""
        read = [
            Partition(topic.name, number) for topic in (self._reader, self._predictions) for number in topic.numbers
        ]
        return the_group(Groups(self._client).of(read), name, self._settings.named(name), self._reader.name)

    def plan(self, group: Group, start: datetime | Literal["beginning"]) -> Sequence[Rewind]:
        """What goes back, told to the user; raises `SettingsError` when that cannot be."""
        reader = self._reader
        model = group.name.removeprefix(self._settings.topic_prefix)
        said, is_warning = self._versions(model)
        firsts, ends = reader.between(reader.numbers, None, None)
        starts = firsts
        if start != "beginning":
            starts, _ = reader.between(reader.numbers, start, None)
            check_time(start, firsts, self._times(firsts, ends), reader.name)
        # What was committed in a topic that was made again may be beyond its end.
        committed = {at.number: min(offset, ends[at.number]) for at, offset in group.committed.items()}
        plan = rewinds(committed, starts)
        if not plan:
            click.echo(f"Nothing to be scored again: {group.name} has scored nothing of that time in {reader.name}.")
            return plan
        self._tell(group.name, plan, deleted=start == "beginning" and any(firsts.values()))
        text = f"Warning: {said}" if is_warning else said
        click.echo(textwrap.fill(text, shutil.get_terminal_size().columns), err=is_warning)
        return plan

    def move(self, group: str, plan: Sequence[Rewind]) -> None:
        """Go back; raises `FatalError` when the broker refuses, as it does when a worker has started meanwhile."""
        offsets = [TopicPartition(self._reader.name, one.number, one.start) for one in plan]
        request = [ConsumerGroupTopicPartitions(group, offsets)]
        try:
            told = self._client.alter_consumer_group_offsets(request, request_timeout=_TIMEOUT)[group].result()
        except KafkaException as error:
            raise self._refused(group, error.args[0].str()) from error
        if errors := [at.error for at in told.topic_partitions if at.error is not None]:
            raise self._refused(group, errors[0].str())

    def _refused(self, group: str, why: str) -> FatalError:
        return FatalError(f"the broker does not let {group} go back ({why}): has one of its workers started meanwhile?")

    def _tell(self, group: str, plan: Sequence[Rewind], *, deleted: bool) -> None:
        name = self._reader.name
        times = self._times({one.number: one.start for one in plan}, {one.number: one.committed for one in plan})
        beginning = ", from the oldest that are still there" if deleted else ""
        click.echo(f"{group} scores records of {name} again{beginning}:")
        for line in tables.table(COLUMNS, [one.as_row(times[one.number]) for one in plan]):
            click.echo(line)
        click.echo(f"{sum(one.records for one in plan):,} records, before those that are new.")

    def _times(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, datetime | None]:
        """When the first records from these offsets on were written, of each partition."""
        name = self._reader.name
        stretches = {n: Stretch(Partition(name, n), start, ends[n]) for n, start in starts.items() if start < ends[n]}
        with closing(FirstRecords(self._settings)) as first_records:
            found = first_records.times(stretches.values())
        return {number: found[stretch] for number, stretch in stretches.items()}

    def _versions(self, model: str) -> tuple[str, bool]:
        uri = self._settings.model_uri or f"models/{model}"
        folder = folder_of(uri)
        card = read_card(folder) if is_model(folder) else None
        if card is not None and card.name != model:
            raise SettingsError(f"{uri} (MODEL_URI) holds the model {card.name}, not {model}")
        last = self._last_prediction(model)
        if last is None:
            raise SettingsError(
                f"no prediction of {model} is in {self._predictions.name}: only the group of a model can go back, "
                "and not that of a consumer with a handler of its own, which knows what it has handled apart from its "
                "offsets"
            )
        return versions(model, uri, last.value["model_version"], card.version if card is not None else None)

    def _last_prediction(self, model: str) -> Record | None:
        topic, predictions = self._pipeline.predictions, self._predictions
        decode = Decoder(schemas_for(self._settings, [topic.event_type]))
        with Console(stderr=True).status(f"looking for the last prediction of {model} in {predictions.name}"):
            for starts, ends in predictions.stretches(predictions.numbers, _BACK):
                likely = (m for m in predictions.read(starts, ends) if model.encode() in (m.value() or b""))
                records = (record for record in map(decode, likely) if is_of(topic, record))
                found = (record for record in records if record.value["model"] == model)
                if last := max(found, key=lambda record: record.value["predicted_at"], default=None):
                    return last
        return None
