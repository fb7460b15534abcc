"""`braidstream lag`: what is behind, since when, and how it is shown."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from braidstream.cli import lag_views, main
from braidstream.cli.groups import (
    FirstRecords,
    Group,
    Groups,
    Log,
    Member,
    Snapshot,
    Stretch,
    dated,
    lags,
    look,
)
from braidstream.embedded import EmbeddedBroker, appear
from braidstream.settings import Settings
from braidstream.streaming import clients
from braidstream.streaming.gaps import Gap
from braidstream.streaming.ports import Partition
from tests import command_line
from tests.terminal import CURSOR_OFF, CURSOR_ON, on_terminal

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
RIDES = [Partition("rides", 0), Partition("rides", 1)]
PREDICTIONS = Partition("predictions", 0)
LOGS = {RIDES[0]: Log(0, 10), RIDES[1]: Log(5, 25), PREDICTIONS: Log(0, 7)}
MEMBER = Member("x.duration-5b1f9e4c-1f2a-4c3d-8e5f-9a0b1c2d3e4f", "x.duration", "10.0.0.7", frozenset(RIDES[:1]))
DURATION = Group("x.duration", "stable", (MEMBER,), {RIDES[0]: 4, RIDES[1]: 25})
IDLE = Group("x.tip", "empty", (), {RIDES[0]: 10})
UNTOLD = Group("x.decision", "unknown", None, {RIDES[1]: 2, PREDICTIONS: 9})


# What is behind


def test_a_group_has_a_row_for_each_partition_of_the_topics_that_it_reads() -> None:
    rows = {(row.group, row.partition): row for row in lags([DURATION, IDLE], LOGS)}
    assert list(rows) == [(name, partition) for name in ("x.duration", "x.tip") for partition in RIDES]
    assert [row.records for row in rows.values()] == [6, 0, 0, 20]
    assert rows["x.duration", RIDES[0]].member == MEMBER
    assert rows["x.duration", RIDES[1]].member is None
    assert rows["x.tip", RIDES[1]].committed is None


def test_a_member_without_commits_reads_its_topic_from_the_beginning() -> None:
    (row, _) = lags([Group("new", "stable", (MEMBER,), {})], LOGS)
    assert (row.committed, row.records, row.unread) == (None, 10, Stretch(RIDES[0], 0, 10))


def test_records_that_are_gone_are_a_gap() -> None:
    rows = {row.partition: row for row in lags([UNTOLD], LOGS)}
    assert rows[RIDES[1]].gap == Gap(RIDES[1], 2, 5, 25)
    assert (rows[RIDES[1]].records, rows[RIDES[1]].unread) == (20, Stretch(RIDES[1], 5, 25))
    assert rows[PREDICTIONS].gap == Gap(PREDICTIONS, 9, 0, 7)
    assert rows[PREDICTIONS].records == 0
    assert rows[RIDES[0]].gap is None


def test_who_reads_what_is_not_committed_may_be_beyond_the_end() -> None:
    (row,) = lags([UNTOLD], {PREDICTIONS: Log(0, 7, 9)})
    assert (row.gap, row.records) == (None, 0)


def test_where_only_markers_of_transactions_are_left_nothing_is() -> None:
    behind, *_ = lags([DURATION], LOGS)
    assert dated([behind], {behind.unread: NOON}) == [replace(behind, since=NOON)]
    assert dated([behind], {behind.unread: None}) == [replace(behind, records=0)]
    assert dated([behind], {}) == [behind]


class _FromTheFuture:
    """An admin client of a broker whose records have their times in microseconds."""

    def list_offsets(self, asked: dict[TopicPartition, object], **_: object) -> dict[TopicPartition, Future[Any]]:
        future: Future[Any] = Future()
        future.set_result(SimpleNamespace(offset=3, timestamp=10**15))
        return dict.fromkeys(asked, future)


def test_a_latest_record_beyond_the_year_9999_is_of_the_future() -> None:
    partition = Partition("ride_started", 0)
    latest = Groups(cast("AdminClient", _FromTheFuture())).latest([partition])
    assert latest[partition] > datetime(9998, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("since", "seconds"), [(None, 0.0), (NOON, 90.0), (NOON + timedelta(hours=1), 0.0)])
def test_the_lag_in_seconds_is_the_age_of_the_first_record(since: datetime | None, seconds: float) -> None:
    row = replace(lags([DURATION], LOGS)[0], since=since)
    assert row.seconds(NOON + timedelta(seconds=90)) == seconds


# The views


def seen() -> Snapshot:
    rows = lags([DURATION, IDLE, UNTOLD], LOGS)
    at = {row.unread: NOON - timedelta(minutes=3) for row in rows if row.records}
    return Snapshot(NOON + timedelta(seconds=0.25), [DURATION, IDLE, UNTOLD], dated(rows, at))


def test_the_summary_has_a_row_for_each_group_and_topic() -> None:
    assert list(lag_views.summary(seen())) == [
        ("x.decision", "predictions", "0", "-", "?", "unknown; records are gone"),
        ("x.decision", "rides", "30", "3 min", "?", "unknown; records are gone"),
        ("x.duration", "rides", "6", "3 min", "1", "stable"),
        ("x.tip", "rides", "20", "3 min", "0", "empty"),
    ]


def test_the_details_have_a_row_for_each_partition() -> None:
    rows = list(lag_views.partitions(seen()))
    assert rows[2] == ("x.decision", "rides", "1", "2", "gone", "3 min", "-")
    assert rows[3] == ("x.duration", "rides", "0", "4", "6", "3 min", "10.0.0.7 5b1f9e4c")
    assert rows[6] == ("x.tip", "rides", "1", "-", "20", "3 min", "-")


def test_programs_get_numbers() -> None:
    decision, duration, tip = lag_views.as_json(seen(), detailed=False)["groups"]
    assert (decision["members"], tip["members"]) == (None, 0)
    assert duration == {
        "group": "x.duration",
        "state": "stable",
        "members": 1,
        "topics": [{"topic": "rides", "lag_records": 6, "lag_seconds": 180.25, "members": 1}],
    }
    detailed = lag_views.as_json(seen(), detailed=True)["groups"][1]
    assert detailed["member_list"] == [{"id": MEMBER.id, "client": "x.duration", "host": "10.0.0.7"}]
    assert detailed["topics"][0]["partitions"][0] == {
        "partition": 0,
        "committed": 4,
        "start": 0,
        "end": 10,
        "lag_records": 6,
        "lag_seconds": 180.25,
        "unprocessed_since": "2026-01-31T11:57:00.000+00:00",
        "is_gone": False,
        "member": MEMBER.id,
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "-"), (0.04, "0.0 s"), (9.94, "9.9 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 d")],
)
def test_spans_are_short(seconds: float, text: str) -> None:
    assert lag_views.span(seconds) == text


# On librdkafka's broker, which does not tell members


@pytest.fixture
def settings() -> Iterator[Settings]:
    """Ten rides in partition 0, of which the group x.duration has processed four and x.tip seven."""
    with EmbeddedBroker() as broker:
        servers = {"bootstrap.servers": broker.bootstrap_servers}
        producer = Producer(servers)
        appear(producer, ["x.ride_started"])
        for number in range(10):
            producer.produce("x.ride_started", b"r", partition=0, timestamp=1_000_000 + 1000 * number)
        assert producer.flush(10) == 0
        for group, offset in (("x.duration", 4), ("x.tip", 7)):
            with closing(Consumer({**servers, "group.id": group})) as consumer:
                consumer.commit(offsets=[TopicPartition("x.ride_started", 0, offset)], asynchronous=False)
        yield Settings.load({f"KAFKA_{n.upper().replace('.', '_')}": v for n, v in servers.items()})


def test_two_groups_are_behind_at_different_records_of_a_partition(settings: Settings) -> None:
    asked = Groups(AdminClient(dict(settings.kafka)), ["x.tip", "x.duration", "nobody"])
    with closing(FirstRecords(settings)) as first_records:
        found = look(asked, first_records, [Partition("x.ride_started", number) for number in (0, 1)])
    assert [(group.name, group.members) for group in found.groups] == [("x.duration", None), ("x.tip", None)]
    rows = {row.group: row for row in found.lags if row.partition.number == 0}
    assert {name: (row.records, row.since) for name, row in rows.items()} == {
        "x.duration": (6, datetime.fromtimestamp(1004, UTC)),
        "x.tip": (3, datetime.fromtimestamp(1007, UTC)),
    }


def test_a_record_of_no_time_that_there_is_waits_too(settings: Settings) -> None:
    producer = Producer(dict(settings.kafka))
    producer.produce("x.ride_started", b"r", partition=1, timestamp=1_800_000_000_000_000)
    assert producer.flush(10) == 0
    asked = Groups(AdminClient(dict(settings.kafka)), ["x.tip"])
    with closing(FirstRecords(settings)) as first_records:
        _, row = look(asked, first_records, [Partition("x.ride_started", number) for number in (0, 1)]).lags
    assert (row.records, row.seconds(NOON)) == (1, 0.0)


@pytest.fixture
def lag(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", settings.bootstrap_servers)
    monkeypatch.setenv("TOPIC_PREFIX", "x.")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["lag", *arguments], prog_name="braidstream")

    return run


def test_a_group_is_named_with_the_prefix_or_without(lag: Any) -> None:
    for name in ("duration", "x.duration"):
        done = lag(name, "--json")
        assert done.exit_code == 0, done.output
        (group,) = json.loads(done.stdout)["groups"]
        assert (group["group"], group["topics"][0]["lag_records"]) == ("x.duration", 6)
    assert lag("duration").stdout.startswith("x.duration\tx.ride_started\t0\t4\t6\t")


@pytest.mark.parametrize("name", ["", os.fsdecode(b"\xff")])
def test_what_cannot_be_a_groups_name_is_refused(settings: Settings, name: str) -> None:
    done = command_line.run("lag", name, settings={"KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers})
    assert done.returncode == 2
    assert "is no name of a group" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_following_looks_again(settings: Settings, number: int, code: int) -> None:
    environ = {"KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers, "TOPIC_PREFIX": "x."}
    with command_line.started("lag", "duration", "--follow", "--json", settings=environ) as process:
        assert process.stdout is not None
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        process.send_signal(number)
        assert process.wait(20) == code
    assert first["time"] < second["time"]
    assert [seen["groups"][0]["topics"][0]["lag_records"] for seen in (first, second)] == [6, 6]


@pytest.mark.parametrize("kind", ["dumb", "xterm"])
def test_following_on_a_terminal(settings: Settings, kind: str) -> None:
    environ = {"KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers, "TOPIC_PREFIX": "x."}
    command = ["env", f"TERM={kind}", *command_line.COMMAND, "lag", "duration", "--follow"]
    with on_terminal(command, command_line.environment(environ)) as terminal:
        terminal.wait_for(lambda: terminal.output.count(" UTC") > 1)
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.exit_code() == 0
    assert (CURSOR_OFF in terminal.output) == (kind == "xterm") == terminal.output.endswith(CURSOR_ON)


def test_each_look_has_a_client_of_its_own(lag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One from before a broker's restart goes on asking with an old leader epoch, in vain."""
    made: list[AdminClient] = []
    looks: list[int] = []

    def admin(settings: Settings) -> AdminClient:
        made.append(AdminClient(dict(settings.kafka)))
        return made[-1]

    def sleep(_: float) -> None:
        assert made
        made.clear()
        looks.append(1)
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(clients, "admin", admin)
    monkeypatch.setattr(time, "sleep", sleep)
    assert lag("duration", "--follow").exit_code == 130


@pytest.mark.parametrize(
    ("arguments", "prefix", "sentence"),
    [
        ([], "x.", "this broker does not list its groups (the embedded one cannot): name those you mean"),
        (["speed"], "x.", "there is no group speed that has committed in the pipeline's topics"),
        (["duration"], "y.", "none of the topics y.ride_started, y.predictions"),
    ],
)
def test_what_is_not_there_is_told(
    lag: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], prefix: str, sentence: str
) -> None:
    monkeypatch.setenv("TOPIC_PREFIX", prefix)
    done = lag(*arguments)
    assert done.exit_code == 2
    assert sentence in done.stderr
