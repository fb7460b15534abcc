"""What came of what was sent, in figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from braidstream.dashboard.view import Latency
from braidstream.demo.watch import Seen


@dataclass(frozen=True)
class Tally:
    """The figures of one run; those of decisions are of each subject's last revision.

    The latency is from sending a subject to reading its first decision.
    """

    sent: int
    predictions: Mapping[str, int]
    complete: int
    partial: int
    missing: int
    actions: Mapping[str, int]
    dead_letters: int
    latency: Latency | None

    def failure(self, subjects: str) -> str | None:
        """What to say when not all of the subjects, named in the plural, were decided."""
        return f"{self.missing:,} {subjects} were not decided" if self.missing else None

    def as_json(self) -> dict[str, object]:
        """The figures for programs."""
        return {
            "predictions": dict(self.predictions),
            "decisions": {"complete": self.complete, "partial": self.partial, "missing": self.missing},
            "latency_ms": asdict(self.latency) if self.latency is not None else None,
        }

    def as_lines(self, subject: str) -> list[str]:
        """The figures for people; `subject` is what was sent, in the singular."""
        return [
            line("predictions", _counts(self.predictions)),
            line("decisions", f"complete {self.complete:,}   partial {self.partial:,}   missing {self.missing:,}"),
            line("", _counts(dict(sorted(self.actions.items())))),
            line("dead letters", f"{self.dead_letters:,}"),
            line(f"{subject} to decision", _latency(self.latency)),
        ]


def line(title: str, text: str) -> str:
    """A line of a summary, its text in the same column as the others'."""
    return f"{title:<18}{text}"


def tally(sent_at: Mapping[str, float], seen: Seen) -> Tally:
    """The figures of what was sent, by subject, at these times of the clock that `seen` goes by."""
    decided = [seen.decisions[subject][-1] for subject in sent_at if subject in seen.decisions]
    took = [(seen.decided_at[s] - at) * 1000 for s, at in sent_at.items() if s in seen.decided_at]
    complete = sum(decision.complete for decision in decided)
    return Tally(
        sent=len(sent_at),
        predictions={model: sum(s in values for s in sent_at) for model, values in seen.predictions.items()},
        complete=complete,
        partial=len(decided) - complete,
        missing=len(sent_at) - len(decided),
        actions=Counter(decision.action for decision in decided),
        dead_letters=seen.dead_letters,
        latency=Latency.of(took),
    )


def _counts(counts: Mapping[str, int]) -> str:
    return "   ".join(f"{name} {count:,}" for name, count in counts.items())


def _latency(latency: Latency | None) -> str:
    return "not measured" if latency is None else f"p50 {latency.p50:,.0f} ms   p99 {latency.p99:,.0f} ms"
