"""`handled`: the changelog of which subjects a consumer has handled."""

from pydantic import AwareDatetime

from schemas.event import Event


class Handled(Event):
    """One subject that was handled; until `expires_at` its events are repeats."""

    subject_id: str
    expires_at: AwareDatetime
