"""Rides of which people are notified: a consumer that gives several events for one, each with a key of its own."""

from __future__ import annotations

import json

from braidstream.avro import AvroSchema, EventType
from braidstream.events import Events
from braidstream.pipelines import Topic, changelog, pipeline
from rides.pipeline import RIDES
from schemas.event import Event
from schemas.ride_started import RideStarted

OUTSIDE = 265
"""A zone that nobody is notified of: the handler fails."""


class Notification(Event):
    """A user is told of a ride."""

    user_id: str
    ride_id: str


_SCHEMA = {
    "type": "record",
    "name": "Notification",
    "fields": [{"name": "user_id", "type": "string"}, {"name": "ride_id", "type": "string"}],
}

NOTIFICATIONS = Topic("notifications", EventType(Notification, (AvroSchema.from_text(json.dumps(_SCHEMA)),)), "user_id")
NOTIFIED = changelog("notified")
NOTIFYING = pipeline(RIDES.subjects, others=(NOTIFICATIONS, NOTIFIED))


def users_of(ride: RideStarted) -> list[str]:
    """Who is notified of a ride: as many as it has passengers."""
    return [f"user-{ride.pickup_zone + number}" for number in range(ride.passenger_count or 0)]


def notify(rides: Events[RideStarted]) -> list[list[Notification]]:
    """Notifications of each ride."""
    if any(ride.pickup_zone == OUTSIDE for ride in rides):
        raise LookupError("nobody lives outside the city")
    return [[Notification(user_id=user, ride_id=ride.ride_id) for user in users_of(ride)] for ride in rides]
