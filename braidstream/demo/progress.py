"""How far a demo is, as a view."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from braidstream.dashboard.recent import SECONDS, Rates
from braidstream.dashboard.view import GroupRow, Latency, TopicRow, View, partial_share
from braidstream.demo.watch import Watch

_DECISIONS_SHOWN = 100


class Progress:
    """Makes views of what a demo's watch has seen, each at most a few times a second.

    The lag of a model is what was sent and it has not predicted. Open is what was sent and is not decided. The latency
    is from sending a subject until its first decision is read.
    """

    def __init__(self) -> None:
        self._rates = Rates()

    def view(self, now: float, sent_at: Mapping[str, float], watch: Watch, note: str | None) -> View:
        """The state at `now`, by the clock of `sent_at` and of the watch."""
        sent, seen = len(sent_at), watch.seen
        counts = {watch.subjects: sent, **watch.counts}
        self._rates.add(now, counts)
        lately = watch.decided.since(now - SECONDS)
        took = [
            1000 * (at - sent_at[decision.subject_id])
            for at, decision in lately
            if decision.revision == 0 and decision.subject_id in sent_at
        ]
        return View(
            title="braidstream demo",
            at=datetime.now(UTC),
            topics=tuple(
                TopicRow(name, self._rates(name), count, is_alarming=name == watch.dead_letters and count > 0)
                for name, count in counts.items()
            ),
            groups=tuple(GroupRow(model, max(0, sent - len(values))) for model, values in seen.predictions.items()),
            open_decisions=max(0, sent - len(seen.decisions)),
            open_is_exact=True,
            latency=Latency.of(took),
            partial=partial_share(decision for _, decision in lately),
            decisions=tuple(watch.decided.latest(_DECISIONS_SHOWN)),
            note=note,
        )
