"""`python -m tests.damaged_batches N`: read N batches of rides, one record of each damaged, and compare.

What a batch reads must be what its records give when they are read one by one. The property tests of
`tests/unit/test_intake.py` look for the odd cases; this one counts.
"""

from __future__ import annotations

import sys
from random import Random

from tests.unit.events import ride
from tests.unit.test_intake import CASES, Sender, assert_read_as_one_by_one

_RECORDS = 40


def main(batches: int) -> None:
    """Raises `AssertionError` at the first batch that differs."""
    random = Random(batches)
    case = CASES["ride_started"]
    sender, intake = Sender(case), case.intake()
    rides = [ride(f"{random.getrandbits(64):016x}", trip_distance=random.uniform(0, 50)) for _ in range(1000)]
    refused = 0
    for _ in range(batches):
        damaged = random.randrange(_RECORDS)
        records = [
            sender.mutated(random.choice(rides), random, offset)
            if offset == damaged
            else sender.record(random.choice(rides), offset)
            for offset in range(_RECORDS)
        ]
        found = assert_read_as_one_by_one(case.topic, intake, records)
        assert not found.errors.keys() - {damaged}
        refused += len(found.errors)
    print(f"{batches:,} batches of {_RECORDS}: {refused:,} damaged records refused, and no neighbour changed")


if __name__ == "__main__":
    main(int(sys.argv[1]))
