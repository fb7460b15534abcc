"""The policy of moderation: whether a video is removed, kept, or shown to a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from math import prod
from types import MappingProxyType
from typing import Annotated, NamedTuple, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from braidstream import DecisionSettings, Known, ModelNames, Verdict
from moderation.schemas.video_uploaded import VideoUploaded

REMOVE = "remove"
KEEP = "keep"
REVIEW = "review"


class Rule(StrEnum):
    """Why a video is decided as it is: what the first of a decision's reasons begins with."""

    SURE = "one service is sure"
    TOGETHER = "the evidence adds up"
    UNCERTAIN = "uncertain"
    UNANSWERED = "a service has not answered"
    FAIL_OPEN = "FAIL_OPEN keeps what is not answered for"
    NOTHING = "nothing against it"


REMOVE_AT: Mapping[str, float] = MappingProxyType({"nsfw": 0.76, "violence": 0.83, "copyright": 0.8, "spam": 0.8})
"""Measured: `python -m moderation.<service>.train` chooses the lowest at which 95 % of the videos break the rule."""
REVIEW_AT: Mapping[str, float] = MappingProxyType({"nsfw": 0.25, "violence": 0.33, "copyright": 0.09, "spam": 0.35})
"""Measured in the same way, for 70 %, and 80 % for copyright."""
REMOVE_TOGETHER_AT = 0.8
"""Measured by `python -m moderation.decisions.evaluate --seed 4 --uploads 50000`: of the videos that several suspicions
remove, 90 % break a rule; at 0.7 it is 87 %, and at 0.9 there are half as many and no fewer mistakes."""

Thresholds = Annotated[Mapping[str, float], NoDecode]
"""Probabilities by service, `nsfw=0.9,spam=0.8` in the environment; services that it leaves out keep the default."""


class ModerationSettings(DecisionSettings):
    """The thresholds of the policy, beside the decision service's own settings."""

    expected_models: ModelNames = Field(
        ("nsfw", "violence", "copyright"), description="Services that a decision waits for, separated by commas."
    )
    remove_at: Thresholds = Field(
        default_factory=lambda: REMOVE_AT,
        description="Probability from which one service alone removes a video, by service.",
    )
    review_at: Thresholds = Field(
        default_factory=lambda: REVIEW_AT,
        description="Probability from which a service finds a video suspicious, by service.",
    )
    remove_together_at: float = Field(
        REMOVE_TOGETHER_AT,
        gt=0,
        le=1,
        description="Probability that at least one of several suspicious services is right, from which they remove.",
    )
    fail_open: bool = Field(
        False, description="Keep what nothing is known against when a service has not answered by the deadline."
    )

    @field_validator("remove_at", "review_at", mode="before")
    @classmethod
    def _parsed(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = [part.split("=") for part in value.split(",") if part.strip()]
        if any(len(part) != 2 for part in parts):
            raise ValueError("give a probability for each service, as in nsfw=0.9,spam=0.8")
        return {name.strip(): probability for name, probability in parts}

    @field_validator("remove_at")
    @classmethod
    def _with_measured_remove_at(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        return _complete(value, REMOVE_AT)

    @field_validator("review_at")
    @classmethod
    def _with_measured_review_at(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        return _complete(value, REVIEW_AT)

    @model_validator(mode="after")
    def _thresholds_are_those_of_the_services(self) -> Self:
        for service in self.expected_models:
            review_at, remove_at = self.review_at.get(service), self.remove_at.get(service)
            if review_at is None or remove_at is None:
                raise ValueError(
                    f"{service} is expected and has no thresholds: measure them, and set REMOVE_AT={service}=… and "
                    f"REVIEW_AT={service}=…"
                )
            if review_at > remove_at:
                raise ValueError(f"REVIEW_AT of {service} is above its REMOVE_AT")
        if unknown := (self.remove_at.keys() | self.review_at.keys()) - REMOVE_AT.keys() - set(self.expected_models):
            named = ", ".join(sorted(unknown))
            raise ValueError(f"there are thresholds of {named}: mend the name, or name it in EXPECTED_MODELS too")
        return self


def _complete(given: Mapping[str, float], defaults: Mapping[str, float]) -> Mapping[str, float]:
    if not all(0 < probability <= 1 for probability in given.values()):
        raise ValueError("a threshold is a probability above 0, and at most 1")
    return MappingProxyType({**defaults, **given})


class _Finding(NamedTuple):
    """What one service says, beside the policy's thresholds."""

    service: str
    value: float
    review_at: float
    remove_at: float

    @property
    def plausible(self) -> bool:
        return 0 <= self.value <= 1

    @property
    def sure(self) -> bool:
        return self.plausible and self.value >= self.remove_at

    @property
    def suspicious(self) -> bool:
        return not self.plausible or self.value >= self.review_at

    def __str__(self) -> str:
        shown = f"{self.service} {self.value:.3f}"
        if not self.plausible:
            return f"{shown} is no probability"
        if self.sure:
            return f"{shown}, at least {self.remove_at:g}: a violation"
        return (
            f"{shown}, at least {self.review_at:g}: suspicious"
            if self.suspicious
            else f"{shown}, below {self.review_at:g}"
        )


def moderation_policy(settings: ModerationSettings) -> Callable[[Known[VideoUploaded]], Verdict | None]:
    """The policy with these thresholds.

    One service that is sure removes a video at once. Once all have answered, or the deadline has passed, several
    suspicious ones remove it if together they are as good as sure; any other suspicion sends it to review. What nothing
    is known against is kept if every service has answered; else it is reviewed, unless the policy fails open.

    Only services that a decision was opened to wait for count: one that is added changes no video before it.
    """

    def decide(known: Known[VideoUploaded]) -> Verdict | None:
        findings = _findings(known, settings)
        if any(finding.sure for finding in findings):
            before = f", before {_listed(known.missing)} answered" if known.missing else ""
            return _verdict(REMOVE, f"{Rule.SURE}{before}", findings)
        if not known.final:
            return None
        if suspicious := [finding for finding in findings if finding.suspicious]:
            return _together(suspicious, findings, known.missing, settings) or _verdict(
                REVIEW, Rule.UNCERTAIN, findings, known.missing
            )
        if not known.missing:
            return _verdict(KEEP, Rule.NOTHING, findings)
        if settings.fail_open:
            return _verdict(KEEP, Rule.FAIL_OPEN, findings, known.missing)
        return _verdict(REVIEW, Rule.UNANSWERED, findings, known.missing)

    return decide


def _findings(known: Known[VideoUploaded], settings: ModerationSettings) -> Sequence[_Finding]:
    return [
        _Finding(service, known.predictions[service].value, settings.review_at[service], settings.remove_at[service])
        for service in known.expected
        if service in known.predictions and service in settings.review_at and service in settings.remove_at
    ]


def _together(
    suspicious: Sequence[_Finding], findings: Sequence[_Finding], missing: Sequence[str], settings: ModerationSettings
) -> Verdict | None:
    """Remove what several services suspect, taken as independent; None when that is not enough."""
    counted = [finding for finding in suspicious if finding.plausible]
    if len(counted) < 2:
        return None
    probability = 1 - prod(1 - finding.value for finding in counted)
    if probability < settings.remove_together_at:
        return None
    services = _listed([finding.service for finding in counted])
    why = f"{Rule.TOGETHER}: {services} together {probability:.3f}, at least {settings.remove_together_at:g}"
    return _verdict(REMOVE, why, findings, missing)


def _verdict(action: str, why: str, findings: Sequence[_Finding], missing: Sequence[str] = ()) -> Verdict:
    return Verdict(action, (str(why), *map(str, findings), *(f"no answer of {service}" for service in missing)))


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
