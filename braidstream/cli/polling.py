"""Asks the broker every so often how far topics and groups are, so that whoever shows it never waits for an answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from threading import Event, Thread

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from braidstream.cli.groups import FirstRecords, Group, Groups, Lag, Log, Stretch, dated, lags
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
class Ends:
    """Where partitions begin and end, as the broker told `at` this time of `time.monotonic`."""

    at: float
    logs: Mapping[Partition, Log]


class Polling:
    """Asks about these partitions, and the groups that read them, in threads of its own until it is closed.

    What was told last is in `ends`, None before the first answer, and `groups`; `failure` and `groups_failure` say why
    there was no answer since.
    """

    def __init__(self, settings: Settings, partitions: Sequence[Partition], every: float) -> None:
        self.ends: Ends | None = None
        self.failure: str | None = None
        self.groups: Sequence[GroupRow] = ()
        self.groups_failure: str | None = None
        self._settings = settings
        self._partitions = partitions
        self._every = every
        self._names: list[str] = []
        self._all_due = 0.0
        self._closed = Event()
        for poll in (self._poll_ends, self._poll_groups):
            Thread(target=poll, daemon=True).start()

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()

    def _poll_ends(self) -> None:
        client = clients.admin(self._settings)
        while not self._closed.wait(0.0 if self.ends is None and self.failure is None else self._every):
            try:
                logs = Groups(client).logs(self._partitions)
                self.ends, self.failure = Ends(time.monotonic(), logs), None
            except (BraidstreamError, KafkaException) as error:
                self.failure = str(error)
                # See `clients.BrokerLogEnds`: an old one may go on asking in vain.
                client = clients.admin(self._settings)

    def _poll_groups(self) -> None:
        with closing(FirstRecords(self._settings)) as first_records:
            self._ask_groups(AtRest(first_records))

    def _ask_groups(self, at_rest: AtRest) -> None:
        client = clients.admin(self._settings)
        wait = 0.0
        while not self._closed.wait(wait):
            begin = time.monotonic()
            try:
                self.groups, self.groups_failure = self._rows(client, at_rest), None
                wait = max(self._every, (time.monotonic() - begin) / _SHARE)
            except SettingsError:
                self.groups_failure = "the embedded broker does not list its groups"
                return
            except (BraidstreamError, KafkaException) as error:
                self.groups_failure = str(error)
                client = clients.admin(self._settings)
                wait = self._every

    def _rows(self, client: AdminClient, at_rest: AtRest) -> list[GroupRow]:
        """Of the groups that read the partitions; all groups are only asked for now and then."""
        begin = time.monotonic()
        is_all = begin >= self._all_due or not self._names
        groups = Groups(client, () if is_all else self._names).of(self._partitions)
        if is_all:
            self._names = [group.name for group in groups]
            self._all_due = begin + max(_ALL_GROUPS_EVERY, (time.monotonic() - begin) / _SHARE)
        return _rows(groups, at_rest(lags(groups, Groups(client).logs(self._partitions))))


class AtRest:
    """Tells lags that are nothing but markers of transactions, once neither group nor partition moves any more.

    To know it takes a read, once for each stretch; of what moves it is not asked.
    """

    def __init__(self, first_records: FirstRecords) -> None:
        self._first_records = first_records
        self._before: set[Stretch] = set()
        self._times: dict[Stretch, datetime | None] = {}

    def __call__(self, rows: Sequence[Lag]) -> list[Lag]:
        """The rows, without records where there are none; raises as `FirstRecords.times` does."""
        unread = {row.unread for row in rows if row.records}
        known = {stretch: at for stretch, at in self._times.items() if stretch in unread}
        self._times = known | self._first_records.times((unread & self._before) - known.keys())
        self._before = unread
        return dated(rows, self._times)


def _rows(groups: Sequence[Group], rows: Sequence[Lag]) -> list[GroupRow]:
    left = dict.fromkeys(sorted(group.name for group in groups), 0)
    for lag in rows:
        left[lag.group] += lag.records
    members = {group.name: None if group.members is None else len(group.members) for group in groups}
    return [GroupRow(name, records, members[name]) for name, records in left.items()]
