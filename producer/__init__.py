"""The backend of the ride pipeline: reads TLC trip records and replays them as `ride_started` events."""
