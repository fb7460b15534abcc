"""`braidstream top`: what a pipeline is doing at this moment."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Never

import click
from rich.console import Console

from braidstream import logs
from braidstream.avro import EventType
from braidstream.cli import plugins
from braidstream.cli.errors import sigterm_ends
from braidstream.cli.following import MOST_A_SECOND, Following
from braidstream.cli.groups import Log
from braidstream.cli.polling import Ends, Polling
from braidstream.cli.reading import partitions_of
from braidstream.cli.records import Decoder
from braidstream.dashboard.recent import SECONDS, Rates
from braidstream.dashboard.render import as_line
from braidstream.dashboard.terminal import Lines, Terminal, can_show
from braidstream.dashboard.view import Latency, TopicRow, View, as_json, partial_share
from braidstream.logs import client_logger
from braidstream.pipelines import Pipeline
from braidstream.registry import schemas_for
from braidstream.settings import Settings
from braidstream.streaming.ports import Partition

_POLL = 1.0
_SLICE = 0.2
_SILENT = 4.0
"""Seconds without an answer of the broker after which that is said."""

_REGISTRY_TIMEOUT = 1.0
"""Seconds for which nothing is shown while a registry does not answer."""

_DECISIONS_SHOWN = 100


class Top:
    """Makes views of what the broker answers, and of what is read of the topics."""

    def __init__(
        self, settings: Settings, pipeline: Pipeline[Any], partitions: Sequence[Partition], polling: Polling
    ) -> None:
        types: list[EventType[Any]] = [pipeline.decisions.event_type, pipeline.decision_state.event_type]
        self._following = Following(settings, pipeline, Decoder(schemas_for(settings, types, _REGISTRY_TIMEOUT)))
        self._polling = polling
        self._title = f"braidstream top · {settings.bootstrap_servers}"
        self._dead_letters = settings.named(pipeline.dead_letters)
        self._topics = list(dict.fromkeys(partition.topic for partition in partitions))
        self._partitions = 1 + max(partition.number for partition in partitions)
        self._rates = Rates()
        self._told: Ends | None = None
        self._begun = time.monotonic()

    def close(self) -> None:
        """Stop reading."""
        self._following.close()

    def read(self, seconds: float) -> None:
        """Take what the broker told and what was written, for so long."""
        told = self._polling.ends
        if told is not None and told is not self._told:
            self._told = told
            self._rates.add(told.at, {**_ends(told.logs), **self._following.counts})
            rate = sum(self._rates(topic) or 0.0 for topic in self._topics)
            self._following.adjust(told.logs, self._partitions, rate / self._partitions)
        self._following.read(seconds)

    @property
    def is_ready(self) -> bool:
        """Whether rates are known."""
        return all(self._rates(topic) is not None for topic in self._topics)

    @property
    def problem(self) -> str | None:
        """Why what is known is old; None while it is not."""
        silent = time.monotonic() - (self._begun if self._told is None else self._told.at)
        if silent < _SILENT:
            return None
        why = f": {self._polling.failure}" if self._polling.failure is not None else ""
        return f"no answer of the broker for {silent:.0f} s, trying again{why}"

    def view(self) -> View:
        """What is known by now."""
        now, since = time.time(), time.monotonic() - SECONDS
        following, subjects = self._following, self._following.subjects
        ends = _ends(self._told.logs) if self._told is not None else {}
        is_followed = bool(following.numbers)
        problem = self.problem
        took = [milliseconds for _, milliseconds in subjects.latencies.since(since)]
        return View(
            title=self._title,
            at=datetime.fromtimestamp(now, UTC),
            topics=tuple(self._topic(topic, ends.get(topic), problem is None) for topic in self._topics),
            groups=tuple(self._polling.groups),
            open_decisions=self._open() if is_followed else None,
            open_is_exact=following.open_is_exact(now),
            latency=Latency.of(took) if is_followed else None,
            partial=partial_share(decision for _, decision in subjects.decided.since(since)),
            decisions=tuple(subjects.decided.latest(_DECISIONS_SHOWN)),
            totals_are_offsets=True,
            note=self._note(),
            problem=problem or following.problem,
        )

    def _topic(self, topic: str, end: int | None, is_current: bool) -> TopicRow:
        rate = self._rates(topic) if is_current else None
        passed = self._rates.change(f"passed {topic}")
        if rate is not None and passed > 0:
            rate *= min(1.0, self._rates.change(f"read {topic}") / passed)
        return TopicRow(topic, rate, end, is_alarming=topic == self._dead_letters and bool(rate))

    def _open(self) -> int:
        return round(self._following.subjects.open * self._partitions / len(self._following.numbers))

    def _note(self) -> str | None:
        followed, there = len(self._following.numbers), self._partitions
        if self._told is not None and not followed:
            return f"over {MOST_A_SECOND:,} records/s in a partition: open and latency are not measured"
        if self._told is not None and followed < there:
            return f"open and latency are of {followed} of {there} partitions"
        return self._polling.groups_failure


def _ends(logs: Mapping[Partition, Log]) -> dict[str, int]:
    """The ends of each topic's partitions together: offsets that were ever written."""
    ends: dict[str, int] = {}
    for partition, log in logs.items():
        ends[partition.topic] = ends.get(partition.topic, 0) + log.end
    return ends


@click.command()
@click.option(
    "--every",
    type=click.FloatRange(0.5, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option("--plain", is_flag=True, help="A line for each look, as in a pipe, instead of a dashboard.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object a line.")
@plugins.pipeline_option
def top(*, every: float, plain: bool, is_json: bool, pipeline_name: str | None) -> None:
    """Watch a pipeline: its topics, groups and decisions, as they are now.

    RECORDS/S is over the last 5 s. OFFSETS are all that were ever given, to records and to markers of transactions. LAG
    is in records. Open are the subjects that wait for their decision. The latency is from when an event was written
    until its decision was, and partial is the share of decisions without some model, both over the last 10 s. Nothing
    of this loads the cluster or takes part in a group. A broker that goes away is waited for.

    \b
    Examples:
      braidstream top
      braidstream top --pipeline moderation.pipeline:MODERATION --every 5
      braidstream top --json | jq '.groups[] | select(.lag > 10000).name'
    """
    if plain and is_json:
        raise click.UsageError("--plain does nothing with --json")
    settings = Settings.load()
    logs.configure(settings.log_level, settings.log_format)
    pipeline = plugins.pipeline(pipeline_name)
    partitions = partitions_of(pipeline, settings)
    with (
        sigterm_ends(),
        closing(Polling(settings, partitions, min(every, _POLL))) as polling,
        closing(Top(settings, pipeline, partitions, polling)) as watched,
        closing(_shown(plain, is_json)) as shown,
    ):
        _watch(watched, shown, every)


def _shown(plain: bool, is_json: bool) -> Terminal | Lines:
    if is_json:
        return Lines(lambda view: json.dumps(as_json(view)))
    console = Console()
    if plain or not can_show(console):
        return Lines(as_line)
    # What the clients say of a lost broker is said on the screen.
    client_logger().setLevel(logging.CRITICAL)
    return Terminal(console)


def _watch(top: Top, shown: Terminal | Lines, every: float) -> Never:
    due = 0.0
    while True:
        now = time.monotonic()
        if now >= due and (top.is_ready or top.problem is not None or isinstance(shown, Terminal)):
            shown.show(top.view())
            due = now + (every if top.is_ready else min(every, _POLL))
        top.read(_SLICE)
        shown.adapt()
