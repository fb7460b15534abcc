"""What the demo's summary says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from braidstream import Decision
from braidstream.demo import Seen
from moderation.decisions.policy import Rule
from moderation.demo.notified import Notified
from moderation.demo.summary import COMPLETED, EARLY, Summary, rule_of, summarize
from moderation.schemas.notification import Notification
from moderation.synthetic.uploads import Upload, make_uploads

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEADLINE = 4.0


def uploads() -> list[Upload]:
    """Two videos, of which the first breaks a rule."""
    made = list(make_uploads(200, seed=5))
    return [next(one for one in made if "nsfw" in one.violations), next(one for one in made if not one.violations)]


def decision(video: str, action: str, reason: str, *, missing: tuple[str, ...] = (), revision: int = 0) -> Decision:
    return Decision(
        subject_id=video,
        revision=revision,
        action=action,
        reasons=[reason],
        complete=not missing,
        missing=list(missing),
        evidence=[],
        opened_at=NOW,
        decided_at=NOW + timedelta(seconds=1),
    )


def summary_of(*decisions: Decision, notified: Notified) -> Summary:
    """The summary of two uploads whose decisions were read two seconds after they were sent."""
    seen = Seen({"nsfw": {}})
    for one in decisions:
        seen.take(one, now=3.0)
    sent = uploads()
    return summarize(sent, {upload.event.video_id: 1.0 for upload in sent}, seen, notified, DEADLINE)


def test_a_summary_tells_rules_revisions_and_quality() -> None:
    bad, good = (upload.event.video_id for upload in uploads())
    notified = Notified(videos={bad, good})
    early = f"{Rule.SURE}, before violence answered"

    summary = summary_of(
        decision(bad, "remove", early, missing=("violence",)),
        decision(bad, "remove", Rule.SURE, revision=1),
        decision(good, "review", Rule.UNANSWERED, missing=("violence",)),
        decision(good, "keep", Rule.NOTHING, revision=1),
        notified=notified,
    )

    assert summary.failure is None
    assert {name: decided.videos for name, decided in summary.rules.items()} == {
        f"remove: {Rule.SURE}, {EARLY}": 1,
        f"review: {Rule.UNANSWERED}": 1,
    }
    assert (summary.early.videos, summary.early.before_deadline, summary.early.p50) == (1, 1, 2000.0)
    assert summary.revisions == {COMPLETED: 1, "review to keep": 1}
    assert (summary.quality.precision, summary.quality.recall) == (1.0, 1.0)


def test_what_is_undecided_or_unhandled_is_a_failure() -> None:
    bad, good = (upload.event.video_id for upload in uploads())
    both = decision(bad, "keep", Rule.NOTHING), decision(good, "keep", Rule.NOTHING)

    assert summary_of(both[0], notified=Notified(videos={bad, good})).failure == "1 videos were not decided"
    assert summary_of(*both, notified=Notified(videos={bad})).failure == "1 videos were not handled by notifications"


def test_a_user_who_is_told_twice_is_counted() -> None:
    bad, good = (upload.event.video_id for upload in uploads())
    notified = Notified(videos={bad, good})
    for _ in range(2):
        notified.notification(Notification(notification_id="n", user_id="u", video_id=good, rank=1, score=0.5))

    told = summary_of(decision(good, "keep", Rule.NOTHING), notified=notified).told

    assert (told.notifications, told.videos, told.repeats) == (2, 1, 1)


def test_the_rule_of_a_decision_is_the_most_exact_one() -> None:
    for rule in Rule:
        assert rule_of(decision("v", "keep", rule)) == rule
