"""Which rides a replay sends, in which order and under which ids."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from itertools import islice

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braidstream import SettingsError
from producer.rounds import Rounds, starting_at

HOUR = timedelta(hours=1)


def rides(count: int) -> pl.DataFrame:
    """So many rides, an hour apart from the beginning of February on."""
    pickups = [datetime(2023, 2, 1) + number * HOUR for number in range(count)]  # noqa: DTZ001 - the city's time
    return pl.DataFrame(
        {
            "ride_id": [f"ride-{number}" for number in range(count)],
            "pickup_at": pl.Series(pickups, dtype=pl.Datetime("ms")),
        }
    )


def ids(rounds: Rounds, first: int = 0, frames: int | None = None) -> list[str]:
    """The ids of the rides from one on; of so many frames where they have no end."""
    return [ride_id for frame in islice(rounds.frames(first), frames) for ride_id in frame["ride_id"]]


def test_once_under_their_own_ids() -> None:
    assert ids(Rounds(rides(12_001), 12_001)) == [f"ride-{number}" for number in range(12_001)]


def test_only_so_many() -> None:
    assert ids(Rounds(rides(5), 2)) == ["ride-0", "ride-1"]


def test_a_frame_is_a_few_thousand_and_ends_with_its_round() -> None:
    heights = [frame.height for frame in islice(Rounds(rides(12_000), None, "salt").frames(), 5)]
    assert heights == [5000, 5000, 2000, 5000, 5000]


@given(st.integers(1, 7), st.integers(0, 40), st.integers(0, 40), st.booleans())
def test_it_goes_on_anywhere_as_if_it_had_not_stopped(height: int, total: int, first: int, new_ids: bool) -> None:
    rounds = Rounds(rides(height), total, "salt" if new_ids else None)
    assert ids(rounds, first) == ids(rounds)[first:]


def test_every_round_has_ids_of_its_own_which_follow_from_the_salt() -> None:
    sent = ids(Rounds(rides(7), None, "salt"), frames=3)
    assert len(set(sent)) == 21
    assert all(uuid.UUID(ride_id).version == 8 for ride_id in sent)
    assert ids(Rounds(rides(7), 21, "salt")) == sent
    assert not {*sent} & {*ids(Rounds(rides(7), 21, "other"))}


def test_nothing_else_than_the_ids_is_new() -> None:
    frames = Rounds(rides(3), 6, "salt").frames()
    assert [frame["pickup_at"].to_list() for frame in frames] == [rides(3)["pickup_at"].to_list()] * 2


def test_the_checksum_is_of_the_rides_and_their_order() -> None:
    own = Rounds(rides(6000), 6000).checksum()
    assert Rounds(rides(6000), None, "salt").checksum() == own
    others = {Rounds(changed, 1).checksum() for changed in (rides(5999), rides(6000)[1:], rides(6000).reverse())}
    assert len({own, *others}) == 4


def test_starting_at_a_time_or_a_number() -> None:
    chosen = rides(5)
    assert starting_at(chosen, chosen["pickup_at"][2]) == 2
    assert starting_at(chosen, chosen["pickup_at"][2] - timedelta(microseconds=1)) == 2
    assert starting_at(chosen, chosen["pickup_at"][2] + timedelta(seconds=1)) == 3
    assert starting_at(chosen, chosen["pickup_at"][0] - HOUR) == 0
    assert [starting_at(chosen, number) for number in (1, 5)] == [0, 4]


def test_starting_at_a_time_takes_all_rides_of_that_time() -> None:
    chosen = rides(5).with_columns(pickup_at=pl.lit(datetime(2023, 2, 1)).cast(pl.Datetime("ms")))  # noqa: DTZ001
    assert starting_at(chosen, chosen["pickup_at"][0]) == 0


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (6, "--start-at 6: there are 5 rides"),
        (
            datetime(2023, 2, 1, 4, 0, 1),  # noqa: DTZ001
            "--start-at 2023-02-01T04:00:01: the last ride begins at 2023-02-01T04:00:00",
        ),
    ],
)
def test_starting_where_there_is_no_ride(start: int | datetime, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        starting_at(rides(5), start)
