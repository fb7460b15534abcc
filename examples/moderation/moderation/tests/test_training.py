"""The models as they are trained: good, not perfect, and what the policy's thresholds were measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from braidstream import Scorer, load_model
from braidstream.testing import ScorerKit
from moderation.copyright.features import TRUSTED
from moderation.copyright.train import COPYRIGHT
from moderation.decisions.evaluate import by_rule, cases
from moderation.decisions.evaluate import main as evaluate
from moderation.decisions.policy import REMOVE, ModerationSettings, Rule
from moderation.notifications.train import NOTIFICATIONS
from moderation.nsfw.train import NSFW
from moderation.pipeline import MODERATION
from moderation.spam.train import SPAM
from moderation.synthetic.fingerprints import library
from moderation.synthetic.uploads import make_uploads
from moderation.tests.videos import video
from moderation.training import Task, Trained, training_command
from moderation.violence.train import VIOLENCE

TASKS: dict[str, Task[Any]] = {task.name: task for task in (NSFW, VIOLENCE, SPAM, COPYRIGHT, NOTIFICATIONS)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def trained(models: Path) -> dict[str, Trained]:
    return {name: task.train(models / name) for name, task in TASKS.items()}


@pytest.mark.parametrize("name", TASKS)
def test_thresholds_in_use_are_the_measured_ones(trained: dict[str, Trained], name: str) -> None:
    assert trained[name].thresholds == pytest.approx(TASKS[name].configured, abs=0.015)


@pytest.mark.parametrize("name", TASKS)
def test_held_out_precision_is_about_what_was_asked_for_and_no_model_is_perfect(
    trained: dict[str, Trained], name: str
) -> None:
    metrics = trained[name].card.metrics

    for threshold, precision in TASKS[name].precision.items():
        assert metrics[f"precision_{threshold}"] == pytest.approx(precision, abs=0.05)
        assert 0.2 < metrics[f"recall_{threshold}"] < 0.98
    assert metrics["average_precision"] < 0.97


def test_a_near_duplicate_is_found_and_an_original_is_not(trained: dict[str, Trained], models: Path) -> None:
    scorer = Scorer(load_model(str(models / "copyright"), trusted=TRUSTED), COPYRIGHT.features)
    copy, original = scorer([video(fingerprint=_with_flipped(library()[7], 12)), video(fingerprint=bytes(range(32)))])

    assert copy > ModerationSettings().remove_at["copyright"]
    assert original < 0.05


def test_words_alone_are_no_offence(trained: dict[str, Trained], models: Path) -> None:
    nsfw = Scorer(load_model(str(models / "nsfw")), NSFW.features)
    harmless, harmful = nsfw(
        [
            video(title="Nude lipstick for every skin tone", description="Swatches on bare arms."),
            video(title="Explicit: fully naked, uncensored", description="18+ only, explicit content for adults only."),
        ]
    )

    assert harmless < ModerationSettings().review_at["nsfw"]
    assert harmful > ModerationSettings().remove_at["nsfw"]


@pytest.mark.parametrize("task", [NSFW, COPYRIGHT], ids=lambda task: task.name)
def test_a_stored_model_scores_what_the_stream_brings(
    trained: dict[str, Trained], models: Path, task: Task[Any]
) -> None:
    scorer = Scorer(load_model(str(models / task.name), trusted=TRUSTED), task.features)
    kit = ScorerKit(MODERATION, predict=scorer, model=task.name)
    videos = [video("v1"), video("v2", title="", description=""), video("v3", title="💥" * 200)]

    assert [one.value for one in kit.send(*videos)] == pytest.approx(scorer(videos).tolist())
    assert kit.dead_letters == []


def test_the_command_trains_once_and_says_what_it_chose(tmp_path: Path) -> None:
    folder = tmp_path / "notifications"
    command = training_command(NOTIFICATIONS)
    first = CliRunner().invoke(command, ["--model-uri", str(folder)])
    again = CliRunner().invoke(command, ["--model-uri", str(folder)])

    assert first.exit_code == again.exit_code == 0, first.output
    assert "chosen for a precision of 0.5: there precision 0." in first.output
    assert "nothing to do" in again.output


def test_the_policy_as_it_is_set_is_mostly_right_on_videos_that_no_model_has_seen(
    trained: dict[str, Trained], models: Path
) -> None:
    settings = ModerationSettings()
    found = cases(list(make_uploads(3000, seed=6)), settings.expected_models, models)
    groups = by_rule(found, settings)
    sure = groups[REMOVE, Rule.SURE]

    assert {rule for _, rule in groups} == {Rule.SURE, Rule.TOGETHER, Rule.UNCERTAIN, Rule.NOTHING}
    assert sum(map(len, groups.values())) == len(found)
    assert sum(case.violating for case in sure) / len(sure) > 0.95
    assert 0.6 < sum(case.violating for case in sure) / sum(case.violating for case in found) < 0.8


def test_the_evaluation_needs_the_models_that_are_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = CliRunner().invoke(evaluate, ["--uploads", "10", "--models", str(tmp_path)])
    monkeypatch.setenv("EXPECTED_MODELS", "nsfw,deepfake")
    monkeypatch.setenv("REMOVE_AT", "deepfake=0.9")
    monkeypatch.setenv("REVIEW_AT", "deepfake=0.5")
    unknown = CliRunner().invoke(evaluate, ["--uploads", "10", "--models", str(tmp_path)])

    assert (without.exit_code, unknown.exit_code) == (2, 2)
    assert "python -m moderation.nsfw.train" in without.output


def _with_flipped(work: np.ndarray[Any, np.dtype[np.uint8]], count: int) -> bytes:
    flipped = np.unpackbits(work)
    flipped[:count] ^= 1
    return np.packbits(flipped).tobytes()
