"""What a check finds."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "warning", "wrong"]


class Finding(NamedTuple):
    """A sentence about one thing; `mend` is the command, or commands, that make it well, where there is one."""

    check: str
    level: Level
    says: str
    mend: tuple[str, ...] = ()


def ok(check: str, says: str) -> Finding:
    """It is as it has to be."""
    return Finding(check, "ok", says)


def warning(check: str, says: str, *mend: str) -> Finding:
    """It works, and will not for long, or not as it was meant."""
    return Finding(check, "warning", says, mend)


def wrong(check: str, says: str, *mend: str) -> Finding:
    """It does not work."""
    return Finding(check, "wrong", says, mend)


def count(number: int, noun: str) -> str:
    """A number of things, in words."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
