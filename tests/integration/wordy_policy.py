"""A decision service whose reasons for some rides are very long: `python -m tests.integration.wordy_policy`."""

from __future__ import annotations

import random

from braidstream.deciding.policy import Known, Verdict
from braidstream.run import run_decisions
from braidstream.settings import DecisionSettings
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted

ZONE = 1
_LONG = 1_500_000
"""Random bytes, more than topics take by default."""


def wordy(known: Known[RideStarted]) -> Verdict | None:
    """Waits for everything; rides from `ZONE` get a long reason."""
    if not known.final:
        return None
    reasons = (random.Random(0).randbytes(_LONG).hex(),) if known.event.pickup_zone == ZONE else ()
    return Verdict("accept", reasons)


if __name__ == "__main__":
    run_decisions(RIDES, "decision", lambda _: wordy, DecisionSettings)
