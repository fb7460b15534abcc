"""`decision_state`: the changelog of what the decision service knows of a subject."""

from typing import Annotated

from annotated_types import Ge, Le
from pydantic import AwareDatetime

from schemas.decision import Evidence
from schemas.event import Event


class Outcome(Event):
    """The last revision that was published for a closed subject."""

    revision: Annotated[int, Ge(0), Le(2**31 - 1)]
    action: str
    complete: bool


class DecisionState(Event):
    """One subject: waiting for its event (`event` is null), open, or closed (`outcome` is set)."""

    subject_id: str
    event: bytes | None
    expected: list[str]
    evidence: list[Evidence]
    first_seen_at: AwareDatetime
    expires_at: AwareDatetime
    outcome: Outcome | None = None
    traceparent: str | None = None
