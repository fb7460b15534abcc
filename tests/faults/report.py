"""What a run has done and found, for people."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterable, Mapping

from tests.faults.run import Outcome

_MOST = 30


def rows(outcome: Outcome) -> list[tuple[str, str]]:
    """The report line by line, each with its figure."""
    setting = outcome.setting
    faulty, settling = outcome.seconds
    kinds = Counter(violation.kind for violation in outcome.violations)
    protocols = sorted(set(setting.protocols.values()))
    return [
        ("seed", str(setting.seed)),
        ("guarantee", setting.guarantee),
        ("group protocol", ", ".join(protocols)),
        ("seconds with faults", f"{faulty:.0f}"),
        ("seconds to settle then", f"{settling:.0f}"),
        *((f"fault: {name}", f"{count:,}") for name, count in sorted(outcome.faults.items())),
        *((name, f"{count:,}") for name, count in outcome.counts.items()),
        *((name, f"{kinds[name]:,}") for name in ("lost", "twice", "wrong", "early")),
        *(
            (f"restarts of {part} after {_exit(code)}", f"{count:,}")
            for (part, code), count in sorted(outcome.restarts.items())
        ),
        ("failures", f"{len(outcome.failures):,}"),
    ]


def text(outcome: Outcome) -> str:
    """For a terminal, with what is wrong."""
    lines = [f"{name:<52}{figure:>20}" for name, figure in rows(outcome)]
    wrong = outcome.failures
    lines += [f"  {line}" for line in wrong[:_MOST]]
    if len(wrong) > _MOST:
        lines.append(f"  and {len(wrong) - _MOST:,} more")
    return "\n".join(lines)


def markdown(outcomes: Iterable[Outcome]) -> str:
    """A table with a column for each run."""
    columns: list[Mapping[str, str]] = [dict(rows(outcome)) for outcome in outcomes]
    names = list(dict.fromkeys(name for column in columns for name in column))
    lines = ["| | " + " | ".join("" for _ in columns) + " |", "| --- |" + " ---: |" * len(columns)]
    lines += [f"| {name} | " + " | ".join(column.get(name, "0") for column in columns) + " |" for name in names]
    return "\n".join(lines) + "\n"


def _exit(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
