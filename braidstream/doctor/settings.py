"""What the doctor reads of the settings: its own, and those of workers that say what has to be there."""

from __future__ import annotations

from pydantic import Field

from braidstream.settings import Guarantee, ModelNames, Seconds, Settings


class DoctorSettings(Settings):
    """The settings of the workers, as far as they are set where the doctor is called."""

    expected_models: ModelNames = Field(default=(), description="Models that a decision waits for.")
    decision_deadline: Seconds = Field(default=30.0, description="Seconds that a decision waits for models.")
    model_uri: str | None = Field(default=None, description="The model that a worker serves.")
    start_command: str | None = Field(default=None, description="Starts the workers of `{group}`, for the advice.")
    processing_guarantee: Guarantee = Field(default="exactly_once", description="What the workers promise.")
