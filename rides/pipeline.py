"""The ride pipeline: `ride_started` in, `predictions` and `decisions` out."""

from pathlib import Path

import schemas
from braidstream import EventType, Topic, pipeline
from schemas.ride_started import RideStarted

RIDES = pipeline(
    Topic("ride_started", EventType.load(RideStarted, "ride_started", Path(schemas.__file__).parent), "ride_id")
)
