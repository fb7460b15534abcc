"""The ride policy: whether to offer a ride's driver the next one before this one ends."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from braidstream import DecisionSettings, Known, ModelNames, Verdict
from schemas.ride_started import RideStarted

PREASSIGN = "preassign"
STANDARD = "standard"
REVIEW = "review"


class RideDecisionSettings(DecisionSettings):
    """The thresholds of the ride policy, beside the decision service's own settings."""

    expected_models: ModelNames = Field(
        ("duration", "tip"), description="Models that a decision waits for, separated by commas."
    )
    preassign_max_minutes: float = Field(
        12.0, gt=0, description="The longest predicted ride whose driver is offered the next one early."
    )
    plausible_max_minutes: float = Field(180.0, gt=0, description="A longer predicted ride is reviewed.")
    plausible_max_tip: float = Field(100.0, gt=0, description="A larger predicted tip, in dollars, is reviewed.")
    plausible_max_mph: float = Field(
        80.0, gt=0, description="A higher mean speed, from distance and predicted duration, is reviewed."
    )


def ride_policy(settings: RideDecisionSettings) -> Callable[[Known[RideStarted]], Verdict | None]:
    """The policy with these thresholds.

    A ride is reviewed when predictions are missing or implausible. Its driver is offered the next ride early when
    it is short by a good estimate: one that rests on a known distance. Everything else is standard.
    """

    def decide(known: Known[RideStarted]) -> Verdict | None:
        if not known.final:
            return None
        if known.missing:
            return Verdict(REVIEW, tuple(f"no prediction of {model}" for model in known.missing))
        distance = known.event.trip_distance
        if doubts := _doubts(known, distance, settings):
            return Verdict(REVIEW, doubts)
        return _early_or_not(known, distance, settings)

    return decide


def _early_or_not(known: Known[RideStarted], distance: float | None, settings: RideDecisionSettings) -> Verdict:
    if "duration" not in known.predictions:
        return Verdict(STANDARD, ("the duration is not predicted",))
    minutes = known.predictions["duration"].value
    if minutes > settings.preassign_max_minutes:
        return Verdict(STANDARD, (f"{minutes:.1f} minutes, more than {settings.preassign_max_minutes:g}",))
    if not distance:
        return Verdict(STANDARD, (f"{minutes:.1f} minutes, but estimated without a distance",))
    return Verdict(PREASSIGN, (f"{minutes:.1f} minutes for {distance:.1f} miles",))


def _doubts(known: Known[RideStarted], distance: float | None, settings: RideDecisionSettings) -> tuple[str, ...]:
    doubts = []
    if (duration := known.predictions.get("duration")) is not None:
        minutes = duration.value
        if not 0 < minutes <= settings.plausible_max_minutes:
            doubts.append(f"a ride of {minutes:.1f} minutes is implausible")
        elif distance and distance / (minutes / 60) > settings.plausible_max_mph:
            doubts.append(f"{distance:.1f} miles in {minutes:.1f} minutes is implausible")
    if (tip := known.predictions.get("tip")) is not None and not -1 <= tip.value <= settings.plausible_max_tip:
        doubts.append(f"a tip of {tip.value:.2f} dollars is implausible")
    return tuple(doubts)
