"""Each rule of the policy, with the clock that its deadlines are of."""

from __future__ import annotations

from typing import Any

import pytest

from braidstream import Decision, SettingsError
from braidstream.testing import PolicyKit
from moderation.decisions.policy import ModerationSettings, Rule, moderation_policy
from moderation.pipeline import MODERATION
from moderation.schemas.video_uploaded import VideoUploaded
from moderation.tests.videos import video

SERVICES = ("nsfw", "violence", "copyright")
REMOVE_AT = {"nsfw": 0.9, "violence": 0.95, "copyright": 0.8}
REVIEW_AT = {"nsfw": 0.4, "violence": 0.5, "copyright": 0.6}


def kit(expected: tuple[str, ...] = SERVICES, **changed: Any) -> PolicyKit[VideoUploaded]:
    fields: dict[str, Any] = {"remove_at": REMOVE_AT, "review_at": REVIEW_AT, "remove_together_at": 0.9, **changed}
    settings = ModerationSettings(expected_models=expected, **fields)
    return PolicyKit(MODERATION, moderation_policy(settings), expected=expected, deadline=30)


def decided(moderation: PolicyKit[VideoUploaded], **values: float) -> list[Decision]:
    """What becomes of a video of which the services say this, in this order."""
    decisions = moderation.event(video("v1"))
    for service, value in values.items():
        decisions += moderation.predict("v1", service, value)
    return decisions


def test_one_sure_service_removes_at_once_before_the_others_have_answered() -> None:
    [decision] = decided(kit(), violence=0.95)

    assert (decision.action, decision.complete, decision.missing) == ("remove", False, ["nsfw", "copyright"])
    assert decision.reasons == [
        f"{Rule.SURE}, before nsfw and copyright answered",
        "violence 0.950, at least 0.95: a violation",
    ]
    assert decision.decided_at == decision.opened_at


def test_each_service_has_a_threshold_of_its_own() -> None:
    assert decided(kit(), copyright=0.8)[0].action == "remove"
    assert decided(kit(), nsfw=0.8) == []


def test_a_removal_is_not_taken_back_by_what_the_others_say() -> None:
    early, complete = decided(kit(), violence=0.95, nsfw=0.0, copyright=0.0)

    assert (early.action, early.complete, early.revision) == ("remove", False, 0)
    assert (complete.action, complete.complete, complete.revision) == ("remove", True, 1)


def test_several_suspicions_add_up_once_all_is_known() -> None:
    moderation = kit()

    assert decided(moderation, nsfw=0.8, violence=0.6) == []
    [decision] = moderation.predict("v1", "copyright", 0.1)

    assert (decision.action, decision.complete) == ("remove", True)
    assert decision.reasons == [
        f"{Rule.TOGETHER}: nsfw and violence together 0.920, at least 0.9",
        "nsfw 0.800, at least 0.4: suspicious",
        "violence 0.600, at least 0.5: suspicious",
        "copyright 0.100, below 0.6",
    ]


def test_they_add_up_at_the_deadline_too_since_a_further_answer_takes_nothing_away() -> None:
    moderation = kit()
    decided(moderation, nsfw=0.8, violence=0.6)
    [decision] = moderation.advance(seconds=30)

    assert (decision.action, decision.missing) == ("remove", ["copyright"])
    assert decision.reasons[0].startswith(Rule.TOGETHER)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"nsfw": 0.89, "violence": 0.0, "copyright": 0.0}, id="one suspicion"),
        pytest.param({"nsfw": 0.5, "violence": 0.6, "copyright": 0.0}, id="two that do not add up"),
        pytest.param({"nsfw": 0.89, "violence": 0.49, "copyright": 0.59}, id="what is not suspicious adds nothing"),
    ],
)
def test_what_is_uncertain_goes_to_review(values: dict[str, float]) -> None:
    [decision] = decided(kit(), **values)

    assert (decision.action, decision.reasons[0], decision.complete) == ("review", Rule.UNCERTAIN, True)


def test_what_nothing_is_known_against_is_kept_when_all_have_answered() -> None:
    [decision] = decided(kit(), nsfw=0.1, violence=0.2, copyright=0.3)

    assert decision.action == "keep"
    assert decision.reasons == [
        Rule.NOTHING,
        "nsfw 0.100, below 0.4",
        "violence 0.200, below 0.5",
        "copyright 0.300, below 0.6",
    ]


@pytest.mark.parametrize(
    ("fail_open", "action", "rule"), [(False, "review", Rule.UNANSWERED), (True, "keep", Rule.FAIL_OPEN)]
)
def test_with_a_service_missing_at_the_deadline_it_is_kept_only_if_the_policy_fails_open(
    fail_open: bool, action: str, rule: Rule
) -> None:
    moderation = kit(fail_open=fail_open)
    decided(moderation, nsfw=0.1, violence=0.2)

    assert moderation.advance(seconds=29) == []
    [decision] = moderation.advance(seconds=1)

    assert (decision.action, decision.missing) == (action, ["copyright"])
    assert (decision.reasons[0], decision.reasons[-1]) == (rule, "no answer of copyright")


def test_a_suspicion_is_reviewed_at_the_deadline_even_if_the_policy_fails_open() -> None:
    moderation = kit(fail_open=True)
    decided(moderation, nsfw=0.5)
    [decision] = moderation.advance(seconds=30)

    assert (decision.action, decision.reasons[0]) == ("review", Rule.UNCERTAIN)
    assert decision.reasons[2:] == ["no answer of violence", "no answer of copyright"]


def test_a_later_contrary_prediction_makes_a_revision() -> None:
    moderation = kit(fail_open=True)
    decided(moderation, nsfw=0.1, violence=0.2)
    [kept] = moderation.advance(seconds=30)
    [revised] = moderation.predict("v1", "copyright", 0.99)

    assert (kept.action, kept.revision) == ("keep", 0)
    assert (revised.action, revised.revision, revised.complete) == ("remove", 1, True)
    assert revised.reasons[0] == Rule.SURE
    assert "copyright 0.990, at least 0.8: a violation" in revised.reasons


def test_a_later_prediction_that_agrees_completes_a_review_into_a_keep() -> None:
    moderation = kit()
    decided(moderation, nsfw=0.1, violence=0.2)
    [reviewed] = moderation.advance(seconds=30)
    [revised] = moderation.predict("v1", "copyright", 0.0)

    assert (reviewed.action, revised.action, revised.reasons[0]) == ("review", "keep", Rule.NOTHING)


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_what_is_no_probability_is_reviewed_and_never_removes(value: float) -> None:
    [decision] = decided(kit(), nsfw=value, violence=0.6, copyright=0.0)

    assert decision.action == "review"
    assert f"nsfw {value:.3f} is no probability" in decision.reasons


def test_a_service_that_is_added_counts_for_videos_from_then_on_only() -> None:
    four = (*SERVICES, "spam")
    before = kit()
    before.event(video("old"))
    before.stop()
    after = PolicyKit(
        MODERATION, moderation_policy(ModerationSettings(expected_models=four)), expected=four, broker=before.broker
    )
    after.event(video("new"))

    assert after.predict("old", "spam", 1.0) == []
    [removed] = after.predict("new", "spam", 1.0)
    for service in ("nsfw", "violence"):
        assert after.predict("old", service, 0.0) == []
    [kept] = after.predict("old", "copyright", 0.0)

    assert (removed.subject_id, removed.action) == ("new", "remove")
    assert (kept.subject_id, kept.action, kept.complete) == ("old", "keep", True)
    assert all("spam" not in reason for reason in kept.reasons)


def test_thresholds_are_named_by_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOVE_AT", "nsfw=0.99, deepfake=0.8")
    monkeypatch.setenv("REVIEW_AT", "deepfake=0.2")
    monkeypatch.setenv("EXPECTED_MODELS", "nsfw,deepfake")
    settings = ModerationSettings.load()

    assert (settings.remove_at["nsfw"], settings.remove_at["deepfake"]) == (0.99, 0.8)
    assert settings.remove_at["violence"] == ModerationSettings().remove_at["violence"]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"EXPECTED_MODELS": "nsfw,deepfake"}, "deepfake is expected and has no thresholds: .* REMOVE_AT=deepfake="),
        ({"REMOVE_AT": "nsfww=0.9"}, "there are thresholds of nsfww: mend the name"),
        ({"REMOVE_AT": "nsfw"}, "give a probability for each service, as in nsfw=0.9,spam=0.8"),
        ({"REMOVE_AT": "nsfw=high"}, "REMOVE_AT"),
        ({"REMOVE_AT": "nsfw=1.5"}, "a threshold is a probability"),
        ({"REMOVE_AT": "nsfw=0.1", "REVIEW_AT": "nsfw=0.2"}, "REVIEW_AT of nsfw is above its REMOVE_AT"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=message):
        ModerationSettings.load()
