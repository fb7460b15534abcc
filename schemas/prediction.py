"""`prediction`: what one model says of one subject."""

from pydantic import AwareDatetime, Field

from schemas.event import Event


class Prediction(Event):
    """One value of one model for one subject; a repeated event gives the same `prediction_id`."""

    prediction_id: str = Field(max_length=256)
    subject_id: str = Field(min_length=1, max_length=1024)
    model: str = Field(min_length=1, max_length=256)
    model_version: str = Field(max_length=256)
    value: float
    predicted_at: AwareDatetime
