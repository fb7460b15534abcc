"""Asks the broker every so often how far topics and groups are, so that whoever shows it never waits for an answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Event, Thread

from confluent_kafka import KafkaException

from braidstream.cli.groups import Group, Groups, Log, lags
from braidstream.dashboard.view import GroupRow
from braidstream.errors import BraidstreamError, SettingsError
from braidstream.settings import Settings
from braidstream.streaming import clients
from braidstream.streaming.ports import Partition

_ALL_GROUPS_EVERY = 10.0
"""Seconds in which a new group is noticed; a cluster with many takes longer."""

_SHARE = 0.1
"""Of the time, at most this is spent asking for groups: a cluster may have thousands."""


@dataclass(frozen=True)
class Answer:
    """What the broker said; `at` is when, by `time.monotonic`. Groups are None where it does not list them."""

    at: float
    logs: Mapping[Partition, Log]
    groups: Sequence[GroupRow] | None


class Polling:
    """Asks about these partitions, and the groups that read them, in a thread of its own until it is closed.

    `answer` is the last one, None before the first. `failure` says why the question after it was not answered.
    """

    def __init__(self, settings: Settings, partitions: Sequence[Partition], every: float) -> None:
        self.answer: Answer | None = None
        self.failure: str | None = None
        self._settings = settings
        self._partitions = partitions
        self._every = every
        self._client = clients.admin(settings)
        self._lists_groups = True
        self._names: list[str] = []
        self._rows: Sequence[GroupRow] = ()
        self._all_due = self._groups_due = 0.0
        self._closed = Event()
        Thread(target=self._run, name="polling", daemon=True).start()

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()

    def _run(self) -> None:
        while True:
            try:
                self._ask()
                self.failure = None
            except (BraidstreamError, KafkaException) as error:
                self.failure = str(error)
                # See `clients.BrokerLogEnds`: an old one may go on asking in vain.
                self._client = clients.admin(self._settings)
            if self._closed.wait(self._every):
                return

    def _ask(self) -> None:
        is_due = self._lists_groups and time.monotonic() >= self._groups_due
        groups = self._groups() if is_due else None
        logs = Groups(self._client).logs(self._partitions)
        if groups is not None:
            self._rows = _rows(groups, logs)
        self.answer = Answer(time.monotonic(), logs, self._rows if self._lists_groups else None)

    def _groups(self) -> list[Group] | None:
        """Those that read the partitions; all groups are only asked for now and then."""
        begin = time.monotonic()
        is_all = begin >= self._all_due or not self._names
        try:
            groups = Groups(self._client, () if is_all else self._names).of(self._partitions)
        except SettingsError:
            self._lists_groups = False
            return None
        took = time.monotonic() - begin
        self._groups_due = begin + took / _SHARE
        if is_all:
            self._names = [group.name for group in groups]
            self._all_due = begin + max(_ALL_GROUPS_EVERY, took / _SHARE)
        return groups


def _rows(groups: Sequence[Group], logs: Mapping[Partition, Log]) -> list[GroupRow]:
    left = dict.fromkeys(sorted(group.name for group in groups), 0)
    for lag in lags(groups, logs):
        left[lag.group] += lag.records
    members = {group.name: None if group.members is None else len(group.members) for group in groups}
    return [GroupRow(name, records, members[name]) for name, records in left.items()]
