"""What a policy sees and says: from what is known of a subject to what is to be done about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from pydantic import BaseModel

E = TypeVar("E", bound=BaseModel)


class Evidence(NamedTuple):
    """The first prediction of one model for a subject."""

    model: str
    model_version: str
    value: float


class Known(NamedTuple, Generic[E]):
    """What is known of a subject when the policy is asked.

    `expected` are the models that this decision waits for, as they were set when it was opened; `missing` are those of
    them without a prediction. `final` is False while more may be waited for: then the policy may return None to wait.
    """

    subject_id: str
    read_event: Callable[[], E]
    predictions: Mapping[str, Evidence]
    expected: tuple[str, ...]
    missing: tuple[str, ...]
    final: bool

    @property
    def event(self) -> E:
        """The subject's own event; decoded at each call."""
        return self.read_event()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done, and why, in words for people."""

    action: str
    reasons: tuple[str, ...] = ()


Policy = Callable[[Known[E]], Verdict | None]
"""Returns None to wait for more, which is only heeded while `Known.final` is False."""
