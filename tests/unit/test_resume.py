"""A replay that goes on: what its file says is acknowledged, whenever it dies, and it is of this replay."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braidstream import SettingsError
from braidstream.errors import FatalError
from producer.resume import MOST, Noting, Position, read_position, take_up, write_position
from producer.rounds import Rounds

TOPIC = "ride_started (id 1, cluster c)"
RIDES = Rounds(pl.DataFrame({"ride_id": ["a", "b", "c"]}), 3)


class Broker:
    """A writer whose records are acknowledged by a flush alone, and which dies at the call of this number."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.acknowledged = 0
        self._sent = 0
        self._calls = itertools.count()
        self._dies_at = dies_at

    def _live(self) -> None:
        if next(self._calls) == self._dies_at:
            raise FatalError("dead")

    def send_many(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        self._live()
        self._sent += len(keys)

    def poll(self, timeout: float) -> None:
        self._live()

    def flush(self) -> None:
        self._live()
        self.acknowledged = self._sent


class Ticks:
    """A clock that goes on by a second whenever it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 60), st.floats(0.5, 20))
def test_what_is_noted_is_acknowledged_whenever_it_dies(batches: list[int], dies_at: int, every: float) -> None:
    broker = Broker(dies_at)
    noted: list[int] = []

    def note(sent: int) -> None:
        assert sent == broker.acknowledged
        noted.append(sent)

    writer = Noting(broker, note, Ticks(), every)
    try:
        for size in batches:
            writer.send_many([b"k"] * size, [b"v"] * size) if size else writer.poll(0.1)
        writer.flush()
    except FatalError:
        assert sorted({*noted}) == noted
    else:
        assert (noted or [0])[-1] == sum(batches) == broker.acknowledged


def test_it_is_noted_every_so_often_also_while_it_waits() -> None:
    noted: list[int] = []
    now = 0.0
    writer = Noting(Broker(), noted.append, lambda: now, every=1.0)
    for now in (0.0, 0.5, 0.9):  # noqa: B007
        writer.send_many([b"k"], [b"v"])
    assert noted == []
    now = 1.0
    writer.poll(0.1)
    writer.poll(0.1)
    assert noted == [3]
    now = 9.0
    writer.poll(0.1)
    assert noted == [3]
    writer.send_many([b"k"], [b"v"])
    assert noted == [3, 4]


def test_a_slow_broker_is_waited_for_less_often() -> None:
    noted: list[int] = []
    now = 0.0
    broker = Broker()

    def note(sent: int) -> None:
        nonlocal now
        noted.append(sent)
        now += 0.5

    writer = Noting(broker, note, lambda: now, every=1.0)
    for now in (1.0, 2.0, 6.0, 6.5):  # noqa: B007
        writer.send_many([b"k"], [b"v"])
    assert noted == [1, 4]


def test_only_so_many_are_sent_between_two_notes_however_slow_the_broker_is() -> None:
    noted: list[int] = []
    writer = Noting(Broker(), noted.append, lambda: 0.0)
    for _ in range(5):
        writer.send_many([b"k"] * (MOST // 2), [b"v"] * (MOST // 2))
    assert noted == [MOST, 2 * MOST]


def test_a_new_file_is_there_before_anything_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "replay.json"
    rounds, position = take_up(path, replace(RIDES, salt="salt"), TOPIC)
    assert rounds.salt == "salt"
    assert position.acknowledged == 0
    assert read_position(path) == position
    assert [found.name for found in tmp_path.iterdir()] == ["replay.json"]


def test_it_goes_on_under_the_ids_of_before(tmp_path: Path) -> None:
    path = tmp_path / "replay.json"
    _, position = take_up(path, replace(RIDES, salt="salt"), TOPIC)
    write_position(path, position.at(2))
    rounds, found = take_up(path, replace(RIDES, salt="other", total=9), TOPIC)
    assert (rounds.salt, rounds.total, found.acknowledged) == ("salt", 9, 2)


@pytest.mark.parametrize(
    ("rounds", "topic", "message"),
    [
        (
            RIDES,
            "ride_started (id 2, cluster c)",
            r"goes to ride_started \(id 1, cluster c\), not to ride_started \(id 2",
        ),
        (replace(RIDES, rides=RIDES.rides.reverse()), TOPIC, "sends other rides: the files, their order or --start-at"),
        (replace(RIDES, salt="salt"), TOPIC, r"sends rides under their own ids, without --new-ids or --loop"),
    ],
)
def test_a_file_of_another_replay_is_refused(tmp_path: Path, rounds: Rounds, topic: str, message: str) -> None:
    path = tmp_path / "replay.json"
    take_up(path, RIDES, TOPIC)
    before = path.read_bytes()
    with pytest.raises(SettingsError, match=message):
        take_up(path, rounds, topic)
    assert path.read_bytes() == before


def test_a_file_of_new_ids_is_refused_without(tmp_path: Path) -> None:
    path = tmp_path / "replay.json"
    take_up(path, replace(RIDES, salt="salt"), TOPIC)
    with pytest.raises(SettingsError, match="sends rides under new ids"):
        take_up(path, RIDES, TOPIC)


@pytest.mark.parametrize("content", ["", "{}", "PAR1", '{"version": 2}', '{"acknowledged": -1}'])
def test_any_other_file_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "trips.parquet"
    path.write_text(content)
    with pytest.raises(SettingsError, match=r"trips.parquet was not written by --resume: give another file"):
        take_up(path, RIDES, TOPIC)
    assert path.read_text() == content


def test_a_file_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        read_position(tmp_path)
    position = Position(topic=TOPIC, rides="", salt=None, acknowledged=0)
    with pytest.raises(SettingsError, match="cannot be written: No such file or directory"):
        write_position(tmp_path / "absent" / "replay.json", position)
