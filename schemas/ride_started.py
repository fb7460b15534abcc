"""`ride_started`: what a backend knows when a ride starts."""

from datetime import datetime
from typing import Annotated

from annotated_types import Ge, Le
from pydantic import AfterValidator, Field, NaiveDatetime

from schemas.event import Event

Zone = Annotated[int, Ge(1), Le(265)]
"""A TLC taxi zone; 264 and 265 stand for unknown and outside the city."""


def _is_plausible(pickup_at: datetime) -> datetime:
    if not 2000 <= pickup_at.year < 2100:
        raise ValueError(f"the year {pickup_at.year} is outside 2000..2099")
    return pickup_at


class RideStarted(Event):
    """A passenger was picked up. Nothing here is known only at the end of the ride."""

    ride_id: str = Field(min_length=1, max_length=128)
    pickup_at: Annotated[NaiveDatetime, AfterValidator(_is_plausible)]
    pickup_zone: Zone
    dropoff_zone: Zone
    trip_distance: Annotated[float, Ge(0)] | None = None
    passenger_count: Annotated[int, Ge(0), Le(2**31 - 1)] | None = None
