"""What is said of records that were deleted before they were read."""

from __future__ import annotations

from braidstream.streaming import gaps
from braidstream.streaming.gaps import Gap
from braidstream.streaming.ports import Partition


def test_every_gap_is_told_and_one_command_closes_them_all() -> None:
    found = [
        Gap(Partition("predictions", 2), offset=5, first=9, end=20),
        Gap(Partition("ride_started", 0), offset=5, first=8, end=8),
        Gap(Partition("ride_started", 3), offset=7, first=0, end=4),
    ]
    said = str(gaps.error(found, "kafka-consumer-groups.sh --group decision"))
    assert (
        "predictions [2] offsets 5 to 8; ride_started [0] offsets 5 to 7; ride_started [3] from offset 7 on, though it "
        "ends at 4 (was it made again?)."
    ) in said
    assert (
        "`kafka-consumer-groups.sh --group decision --topic predictions:2 --topic ride_started:0,3 --reset-offsets "
        "--to-earliest --execute`"
    ) in said
