"""`python -m moderation.decisions.evaluate`: what the policy makes of uploads of which the truth is known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from braidstream import Evidence, Known, Scorer, SettingsError, Verdict, load_model
from braidstream.cli import in_sentences
from moderation.copyright import features as copyright_features
from moderation.decisions.policy import REMOVE, ModerationSettings, Rule, moderation_policy
from moderation.schemas.video_uploaded import VideoUploaded
from moderation.synthetic.uploads import Upload, make_uploads
from moderation.text_features import TEXT

SEED = 5
"""Of the uploads that are decided; models learn from those of 1."""
TOGETHER = (0.6, 0.7, 0.8, 0.9)
"""Values of `REMOVE_TOGETHER_AT` that are compared."""

_FEATURES = {"nsfw": TEXT, "violence": TEXT, "spam": TEXT, "copyright": copyright_features.FEATURES}


class Case(NamedTuple):
    """An upload, and what every service says of it."""

    upload: Upload
    predictions: Mapping[str, Evidence]

    @property
    def violating(self) -> bool:
        """Whether it breaks a rule that a service answers for."""
        return not self.upload.violations.isdisjoint(self.predictions)


def cases(uploads: Sequence[Upload], services: Sequence[str], models: Path) -> list[Case]:
    """What the models in a folder say of these uploads; raises `SettingsError` when there is none."""
    events = [upload.event for upload in uploads]
    said: list[dict[str, Evidence]] = [{} for _ in uploads]
    for service in services:
        if service not in _FEATURES:
            raise SettingsError(f"EXPECTED_MODELS names {service}, which is no service of this example")
        train_with = f"python -m moderation.{service}.train"
        model = load_model(str(models / service), train_with=train_with, trusted=copyright_features.TRUSTED)
        for predictions, value in zip(said, Scorer(model, _FEATURES[service])(events).tolist(), strict=True):
            predictions[service] = Evidence(service, model.version, value)
    return [Case(upload, predictions) for upload, predictions in zip(uploads, said, strict=True)]


def decide(found: Sequence[Case], settings: ModerationSettings) -> Iterator[tuple[Case, Verdict]]:
    """What the policy says when every service has answered."""
    policy = moderation_policy(settings)
    for case in found:
        verdict = policy(_known(case, settings.expected_models))
        assert verdict is not None
        yield case, verdict


def _known(case: Case, services: tuple[str, ...]) -> Known[VideoUploaded]:
    event = case.upload.event
    return Known(event.video_id, lambda: event, case.predictions, services, missing=(), final=True)


def by_rule(found: Sequence[Case], settings: ModerationSettings) -> Mapping[tuple[str, Rule], list[Case]]:
    """The cases by what is done with them, and why."""
    groups: dict[tuple[str, Rule], list[Case]] = defaultdict(list)
    for case, verdict in decide(found, settings):
        rule = next(rule for rule in Rule if verdict.reasons[0].startswith(rule))
        groups[verdict.action, rule].append(case)
    return dict(groups)


@click.command()
@click.option("--uploads", "count", type=click.IntRange(1), default=10_000, show_default=True, help="How many.")
@click.option("--models", type=click.Path(path_type=Path), default="models", show_default=True, help="Their folder.")
@click.option("--seed", default=SEED, show_default=True, help="Another seed gives other uploads; models learn from 1.")
def main(count: int, models: Path, seed: int) -> None:
    """Decide uploads that no model has learned from by the policy's settings, and compare with the truth."""
    with in_sentences(click.get_current_context()):
        settings = ModerationSettings.load()
        found = cases(list(make_uploads(count, seed)), settings.expected_models, models)
    violating = sum(case.violating for case in found)
    click.echo(f"{count:,} uploads, {violating:,} of them break a rule")
    groups = by_rule(found, settings)
    for (action, rule), group in sorted(groups.items()):
        click.echo(f"{action:7} {rule:30} {_shares(group, violating)}")
    for probability in TOGETHER:
        changed = settings.model_copy(update={"remove_together_at": probability})
        group = by_rule(found, changed).get((REMOVE, Rule.TOGETHER), [])
        click.echo(f"REMOVE_TOGETHER_AT={probability:<4g} would remove {_shares(group, violating)}")


def _shares(group: Sequence[Case], violating: int) -> str:
    right = sum(case.violating for case in group)
    precision, recall = right / max(1, len(group)), right / max(1, violating)
    return f"{len(group):6,} videos, {precision:6.1%} of them break a rule: {recall:5.1%} of all that do"


if __name__ == "__main__":
    main(prog_name="python -m moderation.decisions.evaluate")
