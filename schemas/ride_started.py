"""`ride_started`: what a backend knows when a ride starts."""

from datetime import datetime
from typing import Annotated

from annotated_types import Ge, Le, Lt
from pydantic import Field, NaiveDatetime

from schemas.event import Event

Zone = Annotated[int, Ge(1), Le(265)]
"""A TLC taxi zone; 264 and 265 stand for unknown and outside the city."""


PickupTime = Annotated[NaiveDatetime, Ge(datetime(2000, 1, 1)), Lt(datetime(2100, 1, 1))]  # noqa: DTZ001 - local times
"""A time of the city, in its own zone; years that no trip is from are a clock's mistake."""


class RideStarted(Event):
    """A passenger was picked up. Nothing here is known only at the end of the ride."""

    ride_id: str = Field(min_length=1, max_length=128)
    pickup_at: PickupTime
    pickup_zone: Zone
    dropoff_zone: Zone
    trip_distance: Annotated[float, Ge(0)] | None = None
    passenger_count: Annotated[int, Ge(0), Le(2**31 - 1)] | None = None
