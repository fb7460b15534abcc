"""`decision`: what is to be done about a subject, and on what grounds."""

from typing import Annotated

from annotated_types import Ge, Le
from pydantic import AwareDatetime

from schemas.event import Event


class Evidence(Event):
    """A prediction that a decision rests on."""

    model: str
    model_version: str
    value: float


class Decision(Event):
    """One revision of the decision for one subject; revision 0 is the first."""

    subject_id: str
    revision: Annotated[int, Ge(0), Le(2**31 - 1)]
    action: str
    reasons: list[str]
    complete: bool
    missing: list[str]
    evidence: list[Evidence]
    opened_at: AwareDatetime
    decided_at: AwareDatetime
