"""What the demo says at its end."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from statistics import median

from braidstream import Decision
from braidstream.demo import Seen, Tally, line, tally
from moderation.decisions.policy import REMOVE, REVIEW, Rule
from moderation.demo.notified import Notified
from moderation.demo.story import SERVICES
from moderation.synthetic.subscribers import followers
from moderation.synthetic.uploads import Upload

EARLY = "before all had answered"
COMPLETED = "made complete"


@dataclass(frozen=True)
class Decided:
    """The videos that were first decided by one rule, in one way, and the title and reasons of one of them."""

    videos: int
    title: str
    reasons: Sequence[str]


@dataclass(frozen=True)
class Early:
    """Removals before all services had answered.

    `before_deadline` are those that were made within the decision service's deadline; the times are milliseconds from
    sending the video to reading its decision.
    """

    videos: int
    before_deadline: int
    p50: float | None
    longest: float | None


@dataclass(frozen=True)
class Told:
    """Notifications; `left_alone` are followers who were not told of a video, `repeats` those told of it again."""

    notifications: int
    videos: int
    left_alone: int
    repeats: int


@dataclass(frozen=True)
class Quality:
    """The last decisions beside the truth: what breaks a rule of one of the services ought to be removed."""

    violations: int
    removed: int
    rightly_removed: int
    reviewed_violations: int

    @property
    def precision(self) -> float | None:
        """The share of the removed that break a rule."""
        return _share(self.rightly_removed, self.removed)

    @property
    def recall(self) -> float | None:
        """The share of those that break a rule that were removed."""
        return _share(self.rightly_removed, self.violations)

    @property
    def recall_with_review(self) -> float | None:
        """The same with those that a person is to look at."""
        return _share(self.rightly_removed + self.reviewed_violations, self.violations)


@dataclass(frozen=True)
class Summary:
    """What came of the videos that were uploaded; the figures are of their last decisions.

    `rules` has the first decisions by what was decided and by which rule; `revisions` counts the later ones.
    """

    figures: Tally
    first_complete: int
    rules: Mapping[str, Decided]
    early: Early
    revisions: Mapping[str, int]
    told: Told
    unhandled: int
    quality: Quality

    @property
    def failure(self) -> str | None:
        """What to say when not every video was decided and handled."""
        if self.unhandled and not self.figures.missing:
            return f"{self.unhandled:,} videos were not handled by notifications"
        return self.figures.failure("videos")

    def as_json(self) -> dict[str, object]:
        """The summary as `--json` prints it."""
        return {
            "videos": self.figures.sent,
            **self.figures.as_json(),
            "actions": dict(self.figures.actions),
            "first_decisions": {"complete": self.first_complete, "partial": self._first_partial},
            "rules": {name: asdict(decided) for name, decided in self.rules.items()},
            "early_removals": asdict(self.early),
            "revisions": dict(self.revisions),
            "notifications": asdict(self.told),
            "dead_letters": self.figures.dead_letters,
            "quality": {
                **asdict(self.quality),
                "precision": self.quality.precision,
                "recall": self.quality.recall,
                "recall_with_review": self.quality.recall_with_review,
            },
        }

    def as_lines(self) -> list[str]:
        """The summary for people."""
        revisions = "   ".join(f"{name} {count:,}" for name, count in self.revisions.items()) or "none"
        told, quality = self.told, self.quality
        return [
            line("videos uploaded", f"{self.figures.sent:,}"),
            *self.figures.as_lines("video"),
            line("early removals", self._early()),
            line("revisions", revisions),
            line(
                "notifications",
                f"{told.notifications:,} for {told.videos:,} videos   {told.left_alone:,} followers left alone   "
                f"{told.repeats:,} told twice",
            ),
            line(
                "against the truth",
                f"removed {quality.removed:,}: precision {_percent(quality.precision)}, recall "
                f"{_percent(quality.recall)}, with reviews {_percent(quality.recall_with_review)}",
            ),
            f"first decisions ({self.first_complete:,} complete, {self._first_partial:,} partial) by rule:",
            *(text for name, decided in self.rules.items() for text in _rule_lines(name, decided)),
        ]

    @property
    def _first_partial(self) -> int:
        return sum(decided.videos for decided in self.rules.values()) - self.first_complete

    def _early(self) -> str:
        early = self.early
        if early.p50 is None or early.longest is None:
            return "none"
        return (
            f"{early.videos:,}, of them {early.before_deadline:,} before the deadline   "
            f"p50 {early.p50:,.0f} ms   longest {early.longest:,.0f} ms"
        )


def summarize(
    uploads: Sequence[Upload], sent_at: Mapping[str, float], seen: Seen, notified: Notified, deadline: float
) -> Summary:
    """The summary of a run; `sent_at` is when each video was sent, `deadline` the decision service's in seconds."""
    titles = {upload.event.video_id: upload.event.title for upload in uploads}
    return Summary(
        figures=tally(sent_at, seen),
        first_complete=sum(revisions[0].complete for revisions in seen.decisions.values()),
        rules=_rules(seen, titles),
        early=_early(sent_at, seen, deadline),
        revisions=_revisions(seen),
        told=_told(uploads, notified),
        unhandled=len(titles.keys() - notified.videos),
        quality=_quality(uploads, seen),
    )


def rule_of(decision: Decision) -> Rule:
    """The rule of the policy that a decision was made by."""
    return max((rule for rule in Rule if decision.reasons[0].startswith(rule)), key=len)


def _is_early(decision: Decision) -> bool:
    return rule_of(decision) == Rule.SURE and not decision.complete


def _rules(seen: Seen, titles: Mapping[str, str]) -> dict[str, Decided]:
    counts: Counter[str] = Counter()
    examples: dict[str, Decision] = {}
    for revisions in seen.decisions.values():
        first = revisions[0]
        name = f"{first.action}: {rule_of(first)}" + (f", {EARLY}" if _is_early(first) else "")
        counts[name] += 1
        examples.setdefault(name, first)
    return {
        name: Decided(counts[name], titles[examples[name].subject_id], examples[name].reasons)
        for name in sorted(counts)
    }


def _early(sent_at: Mapping[str, float], seen: Seen, deadline: float) -> Early:
    early = [revisions[0] for revisions in seen.decisions.values() if _is_early(revisions[0])]
    if not early:
        return Early(0, 0, None, None)
    took = [1000 * (seen.decided_at[decision.subject_id] - sent_at[decision.subject_id]) for decision in early]
    return Early(
        videos=len(early),
        before_deadline=sum(one.decided_at - one.opened_at < timedelta(seconds=deadline) for one in early),
        p50=round(median(took), 1),
        longest=round(max(took), 1),
    )


def _revisions(seen: Seen) -> Counter[str]:
    counts: Counter[str] = Counter()
    for revisions in seen.decisions.values():
        for before, after in itertools.pairwise(revisions):
            counts[COMPLETED if before.action == after.action else f"{before.action} to {after.action}"] += 1
    return counts


def _told(uploads: Sequence[Upload], notified: Notified) -> Told:
    known = followers()
    asked = sum(len(known.get(upload.event.uploader_id, ())) for upload in uploads)
    return Told(
        notifications=notified.told.total(),
        videos=len({video for video, _user in notified.told}),
        left_alone=asked - len(notified.told),
        repeats=notified.told.total() - len(notified.told),
    )


def _quality(uploads: Sequence[Upload], seen: Seen) -> Quality:
    last = {video: revisions[-1].action for video, revisions in seen.decisions.items()}
    bad = {upload.event.video_id for upload in uploads if upload.violations.intersection(SERVICES)}
    removed = {video for video, action in last.items() if action == REMOVE}
    return Quality(
        violations=len(bad),
        removed=len(removed),
        rightly_removed=len(removed & bad),
        reviewed_violations=sum(last.get(video) == REVIEW for video in bad),
    )


def _rule_lines(name: str, decided: Decided) -> list[str]:
    return [f"{decided.videos:>7,}  {name}", f"{'':9}“{decided.title}”: {'; '.join(decided.reasons)}"]


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{share:.1%}"
