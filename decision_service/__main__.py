"""The decision service of rides: `python -m decision_service`."""

from braidstream import run_decisions
from decision_service.policy import RideDecisionSettings, ride_policy
from rides.pipeline import RIDES

if __name__ == "__main__":
    run_decisions(RIDES, "decision", ride_policy, RideDecisionSettings)
