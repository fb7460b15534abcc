"""A service that joins the moderation of videos while all is running, on a Kafka that rides use too."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from braidstream.deciding.policy import Evidence, Known, Verdict
from braidstream.streaming import clients, topics
from braidstream.writer import open_writer
from moderation.copyright.train import COPYRIGHT
from moderation.decisions.policy import ModerationSettings, moderation_policy
from moderation.nsfw.train import NSFW
from moderation.pipeline import MODERATION
from moderation.spam.train import SPAM
from moderation.synthetic.uploads import make_uploads
from moderation.training import Task
from moderation.violence.train import VIOLENCE
from producer.trips import read_trips, rides
from rides.pipeline import RIDES
from schemas.decision import Decision
from schemas.ride_started import RideStarted
from tests.documents import ROOT
from tests.integration.ride_pipeline import RidePipeline

pytestmark = pytest.mark.docker

RIDE_WORKERS = ("consumers.duration", "consumers.tip", "decision_service")
TASKS: Sequence[Task[Any]] = (NSFW, VIOLENCE, COPYRIGHT, SPAM)
THREE = ("nsfw", "violence", "copyright")
FOUR = (*THREE, "spam")
VIDEOS = 200
RIDES_EACH = 300


@pytest.fixture(scope="module")
def moderation_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moderation")
    for task in TASKS:
        task.train(folder / task.name)
    return folder


class Moderation:
    """The processes of moderation beside those of rides, which run under the same prefix."""

    def __init__(self, pipeline: RidePipeline, models: Path) -> None:
        self._pipeline = pipeline
        self._models = models
        client = clients.admin(pipeline.settings)
        topics.create(client, topics.specs(MODERATION, pipeline.settings), None)

    def start(self, name: str, **settings: str) -> Any:
        path = os.pathsep.join((str(ROOT), str(ROOT / "examples" / "moderation")))
        model = {} if name == "decisions" else {"MODEL_URI": str(self._models / name)}
        return self._pipeline.start(f"moderation.{name}", PYTHONPATH=path, **model, **settings)

    def upload(self, seed: int) -> set[str]:
        """Upload some videos; their ids."""
        events = [upload.event for upload in make_uploads(VIDEOS, seed)]
        with open_writer(MODERATION.subjects, self._pipeline.settings) as writer:
            for event in events:
                writer.send(event)
        return {event.video_id for event in events}

    def opened(self) -> set[str]:
        """The videos of which the decision service holds the event."""
        states = self._pipeline.records(MODERATION.decision_state.name)
        return {str(message.key(), "utf-8") for message in states}  # type: ignore[arg-type]

    def predictions(self) -> Mapping[str, Mapping[str, Evidence]]:
        found: dict[str, dict[str, Evidence]] = {}
        for one in self._pipeline.events(MODERATION.predictions):
            found.setdefault(one.subject_id, {})[one.model] = Evidence(one.model, one.model_version, one.value)
        return found

    def decisions(self) -> dict[str, Decision]:
        """The last revision of each decision."""
        return {one.subject_id: one for one in self._pipeline.events(MODERATION.decisions)}


def test_its_predictions_count_from_then_on_and_nothing_else_changes(
    pipeline: RidePipeline, moderation_models: Path, sample: Path
) -> None:
    moderation = Moderation(pipeline, moderation_models)
    ride_workers = [pipeline.start(module) for module in RIDE_WORKERS]
    events = list(rides(read_trips([sample]).rides.head(3 * RIDES_EACH)))
    for service in ("nsfw", "violence"):
        moderation.start(service)
    three = moderation.start("decisions", DECISION_DEADLINE="600")
    before = moderation.upload(seed=11)
    send(pipeline, events[:RIDES_EACH])
    pipeline.wait_for(lambda: moderation.opened() >= before, "every video to be open")

    pipeline.stop(three)
    assert len(moderation.decisions()) < VIDEOS, "no video was in flight"
    moderation.start("decisions", DECISION_DEADLINE="600", EXPECTED_MODELS=",".join(FOUR))
    moderation.start("spam")
    send(pipeline, events[RIDES_EACH : 2 * RIDES_EACH])
    after = moderation.upload(seed=12)
    pipeline.wait_for(lambda: moderation.opened() >= before | after, "every further video to be open")
    moderation.start("copyright")
    send(pipeline, events[2 * RIDES_EACH :])
    pipeline.wait_for(
        lambda: sum(one.complete for one in moderation.decisions().values()) == 2 * VIDEOS, "every video to be decided"
    )
    pipeline.wait_for(lambda: pipeline.decided() == len(events), "every ride to be decided")

    assert_decided_by(moderation, before, THREE)
    assert_decided_by(moderation, after, FOUR)
    spam = ModerationSettings().remove_at["spam"]
    assert any(found["spam"].value >= spam for video, found in moderation.predictions().items() if video in before)
    assert any(
        "spam" in reason and "violation" in reason
        for video in after
        for reason in moderation.decisions()[video].reasons
    )
    pipeline.assert_each_ride_once([event.ride_id for event in events])
    assert [worker.poll() for worker in ride_workers] == [None, None, None]


def send(pipeline: RidePipeline, events: Sequence[RideStarted]) -> None:
    with open_writer(RIDES.subjects, pipeline.settings) as writer:
        for event in events:
            writer.send(event)


def assert_decided_by(moderation: Moderation, videos: set[str], services: tuple[str, ...]) -> None:
    """Each video is decided as the policy decides what these services say of it."""
    decisions, predictions = moderation.decisions(), moderation.predictions()
    policy = moderation_policy(ModerationSettings(expected_models=services))
    for video in videos:
        found = {name: evidence for name, evidence in predictions[video].items() if name in services}
        assert found.keys() == set(services)
        verdict = policy(Known(video, _no_event, found, services, (), final=True))
        decision = decisions[video]
        assert Verdict(decision.action, tuple(decision.reasons)) == verdict


def _no_event() -> Any:
    raise AssertionError("the policy does not look at the event")
