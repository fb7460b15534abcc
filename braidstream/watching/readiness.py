"""Whether a worker is ready: a list of checks, each with the reason for which it fails."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

STARTING = "the worker is starting"


class Readiness:
    """Takes notes from any thread."""

    def __init__(self) -> None:
        self._reasons: dict[str, str | None] = {
            "assigned": STARTING,
            "restored": STARTING,
            "polling": None,
            "moving": None,
            "committing": None,
        }

    def note(self, check: str, reason: str | None) -> None:
        """How a check is: why it fails, or None when it does not."""
        self._reasons[check] = reason

    @property
    def reasons(self) -> Mapping[str, str | None]:
        """Every check as it is now: why it fails, or None."""
        return MappingProxyType(dict(self._reasons))
