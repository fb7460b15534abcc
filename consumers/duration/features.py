"""What the duration model is given to see of a ride."""

from consumers.ride_features import ride_features

FEATURES = ride_features("pickup_zone", "dropoff_zone", "same_zone", "trip_distance", "pickup_hour", "pickup_weekday")
