"""Were there dead letters lately?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from braidstream.cli.letter_views import Count
from braidstream.doctor.case import Case
from braidstream.doctor.findings import Finding, ok, warning

CHECK = "dead letters"
SINCE = "1h"


def examine(case: Case, counts: Sequence[Count]) -> Iterator[Finding]:
    """What failed in the last hour and was not sent back; the kinds that are most come first."""
    left = [(count, count.letters - count.replayed) for count in counts if count.letters > count.replayed]
    for count, letters in left[:3]:
        yield warning(
            CHECK,
            f"{letters:,} of {count.group or 'a group that is not known'} in the last hour: "
            f"{count.exception.removeprefix('builtins.') or 'not known'} at {count.stage or '-'}",
            case.command(f"dlq list --summary --since {SINCE}"),
        )
    if not left:
        yield ok(CHECK, "none in the last hour that was not sent back")
