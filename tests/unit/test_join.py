"""The join, rule by rule: when a decision is made, revised, and forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from braidstream.avro import LocalSchemas
from braidstream.deciding.join import MOST_MODELS, Decided, Join, Outcome, PolicyError, Rules, State
from braidstream.deciding.policy import Evidence, Known, Policy, Verdict
from braidstream.errors import FatalError, PoisonRecord, RetriableError, SettingsError
from braidstream.streaming.state_codecs import StateCodec
from rides.pipeline import RIDES
from schemas.event import Event

DEADLINE = 30_000
REMEMBER = 3_600_000
EXPECTED = ("violence", "nsfw")
STATE = RIDES.decision_state.event_type
FORMAT = StateCodec(STATE, LocalSchemas(STATE), "decision_state")


class Clip(Event):
    """An uploaded film."""

    title: str


def policy(known: Known[Clip]) -> Verdict | None:
    """Certain violence is enough; otherwise wait for all there is."""
    if known.event.title == "unspeakable":
        raise LookupError("no rule for this one")
    violence = known.predictions.get("violence")
    if violence is not None and violence.value >= 0.99:
        return Verdict("remove", ("violent",))
    if not known.final:
        return None
    flagged = any(evidence.value > 0.5 for evidence in known.predictions.values())
    return Verdict("review" if flagged or known.missing else "keep")


def join_of(policy: Policy[Clip], expected: tuple[str, ...] = EXPECTED) -> Join[Clip]:
    return Join(Rules(policy, expected, DEADLINE, REMEMBER, lambda title: Clip(title=title.decode())), FORMAT)


class Moderation:
    """A join whose clock is moved by hand, and which commits after every step."""

    def __init__(self, expected: tuple[str, ...] = EXPECTED) -> None:
        self.now = 1_000_000
        self.counts: dict[str, int] = {}
        self.changelog: dict[str, bytes | None] = {}
        self.join = join_of(policy, expected)

    def restored(self, expected: tuple[str, ...] = EXPECTED) -> Moderation:
        """Another one that knows what is in the changelog of this one."""
        other = Moderation(expected)
        for clip, value in self.changelog.items():
            other.join.restore(clip, FORMAT.decode(value) if value is not None else None)
        return other

    def upload(self, clip: str, title: str = "kittens") -> list[Decided]:
        self.join.event(clip, title.encode(), self.now)
        return self.commit()

    def predict(self, clip: str, model: str, value: float = 0.1, version: str = "1") -> list[Decided]:
        self.join.prediction(clip, Evidence(model, version, value), self.now)
        return self.commit()

    def wait(self, milliseconds: int) -> list[Decided]:
        """Everything is read all the time."""
        self.now += milliseconds
        return self.advance(self.now, self.now)

    def advance(self, predictions_read: int, events_read: int) -> list[Decided]:
        self.join.advance(self.now, predictions_read, events_read)
        return self.commit()

    def commit(self) -> list[Decided]:
        changes = self.join.changes()
        decisions = list(changes.decisions)
        self.counts = dict(changes.counts)
        self.changelog |= changes.states
        self.join.commit()
        return decisions


@pytest.fixture
def moderation() -> Moderation:
    return Moderation()


def test_it_closes_when_every_expected_model_has_answered(moderation: Moderation) -> None:
    opened_at = moderation.now
    assert moderation.upload("a") == []
    moderation.wait(5)
    assert moderation.predict("a", "violence") == []
    moderation.wait(5)
    [decided] = moderation.predict("a", "nsfw", 0.2)
    assert decided == Decided(
        "a",
        revision=0,
        verdict=Verdict("keep"),
        missing=(),
        evidence=(Evidence("violence", "1", 0.1), Evidence("nsfw", "1", 0.2)),
        opened_at=opened_at,
        decided_at=opened_at + 10,
    )
    assert moderation.counts == {"complete": 1}
    assert moderation.join.open == 0


def test_predictions_that_come_first_wait_for_the_event(moderation: Moderation) -> None:
    moderation.predict("a", "nsfw")
    assert moderation.predict("a", "violence") == []
    assert moderation.join.open == 0
    moderation.wait(DEADLINE - 1)
    [decided] = moderation.upload("a")
    assert (decided.missing, decided.opened_at) == ((), moderation.now)


def test_the_policy_may_close_early_at_the_event(moderation: Moderation) -> None:
    moderation.predict("a", "violence", 0.995)
    [decided] = moderation.upload("a")
    assert (decided.verdict, decided.missing) == (Verdict("remove", ("violent",)), ("nsfw",))


def test_the_policy_may_close_early_at_a_prediction(moderation: Moderation) -> None:
    moderation.upload("a")
    [decided] = moderation.predict("a", "violence", 0.995)
    assert (decided.verdict.action, decided.missing) == ("remove", ("nsfw",))


def test_only_the_first_prediction_of_a_model_counts(moderation: Moderation) -> None:
    moderation.upload("a")
    moderation.predict("a", "violence", 0.1, version="1")
    assert moderation.predict("a", "violence", 1.0, version="2") == []
    assert moderation.counts == {"repeated_predictions": 1}
    [decided] = moderation.predict("a", "nsfw")
    assert decided.evidence[0] == Evidence("violence", "1", 0.1)


def test_a_repeated_prediction_of_a_closed_subject_is_ignored(moderation: Moderation) -> None:
    moderation.upload("a")
    moderation.predict("a", "violence", 0.1)
    moderation.predict("a", "nsfw")
    assert moderation.predict("a", "violence", 1.0) == []
    assert moderation.counts == {"repeated_predictions": 1}


def test_a_repeated_event_is_ignored_and_does_not_move_the_deadline(moderation: Moderation) -> None:
    moderation.upload("a")
    moderation.wait(DEADLINE - 1)
    assert moderation.upload("a") == []
    assert moderation.counts == {"repeated_events": 1}
    assert len(moderation.wait(1)) == 1
    assert moderation.upload("a") == []


def test_a_model_that_is_not_expected_is_heard_but_not_waited_for(moderation: Moderation) -> None:
    moderation.upload("a")
    moderation.predict("a", "copyright", 0.9)
    moderation.predict("a", "violence")
    [decided] = moderation.predict("a", "nsfw")
    assert (decided.verdict.action, decided.missing) == ("review", ())
    assert [evidence.model for evidence in decided.evidence] == ["copyright", "violence", "nsfw"]


def test_a_model_that_is_not_expected_completes_nothing(moderation: Moderation) -> None:
    moderation.upload("a")
    moderation.predict("a", "copyright")
    assert moderation.predict("a", "violence") == []


def test_at_the_deadline_it_closes_with_what_is_missing(moderation: Moderation) -> None:
    moderation.upload("a")
    moderation.predict("a", "nsfw")
    assert moderation.wait(DEADLINE - 1) == []
    [decided] = moderation.wait(1)
    assert (decided.verdict.action, decided.missing) == ("review", ("violence",))
    assert decided.decided_at - decided.opened_at == DEADLINE
    assert moderation.counts == {"partial": 1}


def test_a_deadline_fires_only_when_the_predictions_are_read_up_to_it(moderation: Moderation) -> None:
    deadline = moderation.now + DEADLINE
    moderation.upload("a")
    moderation.now = deadline + 60_000
    assert moderation.join.due(moderation.now)
    assert moderation.advance(predictions_read=deadline - 1, events_read=moderation.now) == []
    moderation.predict("a", "violence")
    [decided] = moderation.predict("a", "nsfw")
    assert decided.missing == ()


def test_what_is_read_up_to_the_deadline_need_not_be_read_up_to_now(moderation: Moderation) -> None:
    deadline = moderation.now + DEADLINE
    moderation.upload("a")
    moderation.now = deadline + 60_000
    [decided] = moderation.advance(predictions_read=deadline, events_read=0)
    assert decided.decided_at == moderation.now


def test_a_deadline_that_is_not_read_up_to_holds_up_no_other(moderation: Moderation) -> None:
    moderation.upload("late")
    moderation.now += 1000
    moderation.predict("orphan", "nsfw")
    moderation.now += DEADLINE
    assert moderation.advance(predictions_read=0, events_read=moderation.now) == []
    assert moderation.counts == {"orphans": 1}
    assert [decided.subject_id for decided in moderation.advance(moderation.now, moderation.now)] == ["late"]


def test_a_prediction_without_an_event_is_dropped_after_the_deadline(moderation: Moderation) -> None:
    moderation.predict("a", "nsfw")
    assert moderation.wait(DEADLINE) == []
    assert moderation.counts == {"orphans": 1}
    assert moderation.changelog == {"a": None}
    assert len(moderation.join) == 0


def test_an_orphan_is_dropped_only_when_the_events_are_read_up_to_its_end(moderation: Moderation) -> None:
    end = moderation.now + DEADLINE
    moderation.predict("a", "nsfw")
    moderation.predict("a", "violence")
    moderation.now = end + 1
    moderation.advance(predictions_read=moderation.now, events_read=end - 1)
    assert len(moderation.join) == 1
    assert len(moderation.upload("a")) == 1


@pytest.mark.parametrize(
    ("early", "late", "revised"),
    [
        ([], [("violence", 0.1)], []),
        ([("nsfw", 0.1)], [("violence", 0.1)], [(1, "keep", ())]),
        ([("nsfw", 0.1)], [("violence", 1.0)], [(1, "remove", ())]),
        ([], [("violence", 1.0)], [(1, "remove", ("nsfw",))]),
        ([], [("violence", 1.0), ("nsfw", 0.1)], [(1, "remove", ("nsfw",)), (2, "remove", ())]),
        ([("nsfw", 0.9)], [("copyright", 0.9)], []),
    ],
    ids=["changes nothing", "completes", "completes and changes", "changes", "changes, then completes", "not expected"],
)
def test_a_late_prediction_revises_what_it_changes(
    moderation: Moderation,
    early: list[tuple[str, float]],
    late: list[tuple[str, float]],
    revised: list[tuple[int, str, tuple[str, ...]]],
) -> None:
    moderation.upload("a")
    for model, value in early:
        moderation.predict("a", model, value)
    [first] = moderation.wait(DEADLINE)
    assert (first.revision, first.verdict.action) == (0, "review")
    revisions = [decided for model, value in late for decided in moderation.predict("a", model, value)]
    assert [(r.revision, r.verdict.action, r.missing) for r in revisions] == revised
    assert moderation.counts["late_predictions"] == 1


def test_a_revision_does_not_lengthen_memory(moderation: Moderation) -> None:
    moderation.upload("a")
    moderation.wait(DEADLINE)
    moderation.wait(REMEMBER - 1)
    assert len(moderation.predict("a", "violence", 1.0)) == 1
    moderation.wait(1)
    assert len(moderation.join) == 0


def test_a_closed_subject_is_forgotten_after_its_time_and_may_begin_again(moderation: Moderation) -> None:
    moderation.upload("a")
    moderation.wait(DEADLINE)
    moderation.wait(REMEMBER - 1)
    assert moderation.upload("a") == []
    moderation.wait(1)
    assert moderation.changelog == {"a": None}
    moderation.upload("a")
    [decided] = moderation.wait(DEADLINE)
    assert decided.revision == 0


def test_what_is_expected_is_fixed_at_the_opening() -> None:
    before = Moderation(expected=("violence",))
    before.upload("a")
    after = before.restored(expected=("violence", "nsfw"))
    [decided] = after.predict("a", "violence")
    assert decided.missing == ()
    after.upload("b")
    assert after.predict("b", "violence") == []


def test_what_is_expected_of_a_waiting_prediction_is_fixed_at_the_event() -> None:
    before = Moderation(expected=("violence",))
    before.predict("a", "violence")
    after = before.restored(expected=("violence", "nsfw"))
    assert after.upload("a") == []


def test_every_kind_of_state_is_restored(moderation: Moderation) -> None:
    moderation.predict("waiting", "nsfw")
    moderation.upload("open")
    moderation.upload("closed")
    moderation.predict("closed", "violence", 1.0)
    moderation.predict("forgotten", "nsfw")
    moderation.join.forget("forgotten")
    moderation.commit()
    restored = moderation.restored()
    assert (restored.join.open, len(restored.join)) == (1, 3)
    assert restored.join.changes().states == {}
    assert restored.changelog == {}
    assert restored.upload("waiting") == []
    assert restored.predict("closed", "violence") == []
    assert [decided.subject_id for decided in restored.wait(DEADLINE)] == ["open", "waiting"]
    assert restored.join.state("closed") == State(
        event=b"kittens",
        expected=EXPECTED,
        evidence=(Evidence("violence", "1", 1.0),),
        first_seen_at=1_000_000,
        expires_at=1_000_000 + REMEMBER,
        outcome=Outcome(0, "remove", complete=False),
    )


def test_a_tombstone_in_the_changelog_removes_a_restored_state(moderation: Moderation) -> None:
    moderation.upload("a")
    moderation.join.restore("a", None)
    assert (moderation.join.open, len(moderation.join)) == (0, 0)
    assert moderation.wait(DEADLINE) == []


def test_a_rollback_equals_never_happened(moderation: Moderation) -> None:
    moderation.upload("open")
    moderation.predict("waiting", "nsfw")
    before = moderation.join.state("open"), moderation.join.state("waiting"), moderation.join.next_expiry()
    join = moderation.join
    join.event("new", b"kittens", moderation.now)
    join.event("waiting", b"kittens", moderation.now)
    join.prediction("open", Evidence("violence", "1", 1.0), moderation.now)
    join.advance(moderation.now + DEADLINE, moderation.now + DEADLINE, moderation.now + DEADLINE)
    assert len(join.changes().decisions) == 3
    join.rollback()
    assert join.changes() == ((), {}, {})
    assert (join.open, len(join)) == (1, 2)
    assert (join.state("open"), join.state("waiting"), join.next_expiry()) == before
    assert join.state("new") is None
    assert len(moderation.wait(DEADLINE)) == 1


def test_a_subject_that_changes_twice_is_written_once(moderation: Moderation) -> None:
    moderation.join.event("a", b"kittens", moderation.now)
    moderation.join.prediction("a", Evidence("nsfw", "1", 0.1), moderation.now)
    moderation.join.prediction("a", Evidence("violence", "1", 0.1), moderation.now)
    states = moderation.join.changes().states
    assert states.keys() == {"a"}
    assert FORMAT.decode(states["a"] or b"") == moderation.join.state("a")


def test_a_policy_that_raises_leaves_everything_as_it_was(moderation: Moderation) -> None:
    with pytest.raises(PolicyError, match="the policy failed for a: LookupError: no rule for this one") as raised:
        moderation.upload("a", "unspeakable")
    assert raised.value.subject_id == "a"
    assert isinstance(raised.value.__cause__, LookupError)
    assert moderation.join.changes().states == {}
    assert len(moderation.join) == 0


def test_a_reason_that_cannot_be_written_is_the_policys_error() -> None:
    join = join_of(lambda _: Verdict("keep", ("\ud800",)), EXPECTED)
    with pytest.raises(PolicyError, match="surrogates not allowed"):
        join.event("a", b"kittens", 0)
    assert join.changes().states == {}


def test_a_policy_that_raises_at_a_deadline_holds_up_no_other(moderation: Moderation) -> None:
    for clip in ("a", "b", "c"):
        moderation.upload(clip)
    bad = moderation.join.state("b")
    assert bad is not None
    moderation.join.restore("b", bad._replace(event=b"unspeakable"))
    moderation.now += DEADLINE
    outcomes = moderation.join.advance(moderation.now, moderation.now, moderation.now)
    assert [outcome and outcome.subject_id for outcome in outcomes] == [None, "b", None]
    moderation.join.forget("b")
    assert [decided.subject_id for decided in moderation.commit()] == ["a", "c"]
    assert moderation.changelog["b"] is None


def test_a_policy_must_decide_when_there_is_nothing_to_wait_for() -> None:
    join = join_of(lambda _: None)
    join.event("a", b"kittens", 0)
    [outcome] = join.advance(DEADLINE, DEADLINE, DEADLINE)
    assert "returned None although there is nothing more to wait for" in str(outcome)


def test_the_policy_sees_what_is_known() -> None:
    seen: list[tuple[str, str, dict[str, float], tuple[str, ...], tuple[str, ...], bool]] = []

    def watch(known: Known[Clip]) -> Verdict | None:
        values = {model: evidence.value for model, evidence in known.predictions.items()}
        what = (known.subject_id, known.event.title, values, known.expected, known.missing, known.final)
        seen.append(what)
        return Verdict("done") if known.final else None

    join = join_of(watch)
    join.event("a", b"kittens", 0)
    join.prediction("a", Evidence("nsfw", "1", 0.5), 1)
    join.advance(DEADLINE, DEADLINE, DEADLINE)
    assert seen == [
        ("a", "kittens", {}, EXPECTED, EXPECTED, False),
        ("a", "kittens", {"nsfw": 0.5}, EXPECTED, ("violence",), False),
        ("a", "kittens", {"nsfw": 0.5}, EXPECTED, ("violence",), True),
    ]


def test_it_is_due_from_its_next_expiry_on(moderation: Moderation) -> None:
    assert moderation.join.next_expiry() is None
    assert not moderation.join.due(2**62)
    moderation.upload("a")
    assert moderation.join.next_expiry() == moderation.now + DEADLINE
    assert not moderation.join.due(moderation.now + DEADLINE - 1)
    assert moderation.join.due(moderation.now + DEADLINE)


def test_the_deadline_of_a_closed_subject_is_not_due(moderation: Moderation) -> None:
    moderation.upload("a")
    moderation.upload("b")
    for model in EXPECTED:
        moderation.predict("a", model)
    now = moderation.now + DEADLINE
    assert moderation.join.due(now)
    for model in EXPECTED:
        moderation.predict("b", model)
    assert not moderation.join.due(now)


def test_a_closing_that_is_undone_leaves_the_deadline_due(moderation: Moderation) -> None:
    moderation.upload("a")
    now = moderation.now + DEADLINE
    for model in EXPECTED:
        moderation.join.prediction("a", Evidence(model, "1", 0.1), moderation.now)
    assert not moderation.join.due(now)
    moderation.join.rollback()
    assert moderation.join.due(now)


def test_the_clock_ends_no_more_subjects_than_it_is_told_to(moderation: Moderation) -> None:
    """What came of a long downtime is published in more than one transaction."""
    join = moderation.join
    for clip in "abc":
        moderation.predict(f"orphan-{clip}", "nsfw")
        moderation.upload(f"open-{clip}")
    moderation.now += DEADLINE
    ended = []
    for _ in range(4):
        join.advance(moderation.now, moderation.now, moderation.now, most=2)
        ended.append(dict(join.changes().counts))
        moderation.commit()
    assert ended == [{"orphans": 2}, {"orphans": 1, "partial": 1}, {"partial": 2}, {}]


def close(moderation: Moderation, *clips: str) -> None:
    """Close these, a second after each other."""
    for clip in clips:
        moderation.now += 1000
        moderation.upload(clip)
        moderation.predict(clip, "violence", 1.0)


def test_the_oldest_of_the_closed_are_forgotten_early_and_counted(moderation: Moderation) -> None:
    close(moderation, "b", "a", "c")
    moderation.upload("open")
    moderation.predict("waiting", "nsfw")
    moderation.join.forget_oldest(2)
    assert moderation.join.changes().states == {"b": None, "a": None}
    assert moderation.join.changes().counts == {"forgotten_early": 2}
    moderation.commit()
    assert (moderation.join.remembered, moderation.join.open, moderation.join.waiting) == (1, 1, 1)
    assert moderation.restored().join.remembered == 1


def test_there_may_be_fewer_to_be_forgotten_early(moderation: Moderation) -> None:
    moderation.upload("open")
    moderation.join.forget_oldest(5)
    assert moderation.join.changes() == ((), {}, {})


def test_what_was_forgotten_early_is_known_again_after_a_rollback(moderation: Moderation) -> None:
    close(moderation, "a", "b")
    moderation.join.forget_oldest(1)
    moderation.join.rollback()
    assert moderation.join.remembered == 2
    moderation.wait(REMEMBER)
    assert moderation.changelog == {"a": None, "b": None}


def test_predictions_of_too_many_models_are_refused() -> None:
    moderation = Moderation()
    moderation.upload("a")
    for clip in ("a", "waiting"):
        for number in range(MOST_MODELS):
            moderation.predict(clip, f"model-{number}")
        with pytest.raises(PoisonRecord, match=f"{clip} has predictions of 50 models, no more are kept"):
            moderation.predict(clip, "one more")
        assert moderation.join.changes().states == {}
        moderation.predict(clip, "model-0")
        assert moderation.counts == {"repeated_predictions": 1}


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RetriableError("later"), RetriableError),
        (SettingsError("no such file"), SettingsError),
        (MemoryError(), FatalError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (RecursionError("too deep"), PolicyError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_a_policy_raises_is_the_subjects_fault_or_not(error: BaseException, raised: type[BaseException]) -> None:
    def fails(_: Known[Clip]) -> Verdict | None:
        raise error

    join = join_of(fails)
    with pytest.raises(raised):
        join.event("a", b"kittens", 0)
    assert join.changes().states == {}


@pytest.mark.parametrize("returned", ["keep", True, ("keep", ()), {}], ids=repr)
def test_what_is_no_verdict_is_the_policys_error(returned: Any) -> None:
    join = join_of(lambda _: returned)
    with pytest.raises(PolicyError, match="neither a Verdict nor None"):
        join.event("a", b"kittens", 0)
