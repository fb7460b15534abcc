"""The decision service of rides with a policy that never answers: `python -m tests.integration.hanging_policy`."""

import threading
from collections.abc import Callable

from braidstream.deciding.policy import Known, Verdict
from braidstream.run import run_decisions
from decision_service.policy import RideDecisionSettings
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted


def hanging_policy(_: RideDecisionSettings) -> Callable[[Known[RideStarted]], Verdict | None]:
    def wait_for_nobody(_: Known[RideStarted]) -> Verdict | None:
        threading.Event().wait()
        return None

    return wait_for_nobody


if __name__ == "__main__":
    run_decisions(RIDES, "decision", hanging_policy, RideDecisionSettings)
