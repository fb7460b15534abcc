"""The moderation demo on real Kafka, exactly once, read again by the command line when it is over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from moderation.decisions.policy import Rule
from tests import command_line
from tests.documents import ROOT

pytestmark = pytest.mark.docker

PROJECT = ROOT / "examples" / "moderation"
VIDEOS = 1000
DEADLINE = 4.0

Record = dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A demo that is over: its summary, and where its topics are."""

    summary: Record
    settings: dict[str, str]

    def tail(self, topic: str) -> list[Record]:
        """Every committed value of a topic."""
        arguments = ("tail", topic, "--pipeline", "moderation.pipeline:MODERATION", "--to-end", "--json")
        done = command_line.run(*arguments, settings=self.settings)
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["value"] for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def finished(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The demo, run once for all tests."""
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "TOPIC_PREFIX": f"test-{uuid4().hex[:12]}-",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(PROJECT)]),
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "moderation.demo", "--json"),
            *("--videos", str(VIDEOS), "--deadline", str(DEADLINE)),
        ],
        cwd=tmp_path_factory.mktemp("moderation"),
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Finished(json.loads(done.stdout), settings)


def test_every_video_is_predicted_once_by_every_service(finished: Finished) -> None:
    videos = [value["video_id"] for value in finished.tail("video_uploaded")]
    predicted = Counter((value["subject_id"], value["model"]) for value in finished.tail("video_predictions"))

    assert len(set(videos)) == len(videos) == VIDEOS
    assert predicted == Counter((video, model) for video in videos for model in ("copyright", "nsfw", "violence"))


def test_every_video_is_decided_and_its_revisions_are_in_order(finished: Finished) -> None:
    revisions: dict[str, list[Record]] = {value["video_id"]: [] for value in finished.tail("video_uploaded")}
    for value in finished.tail("video_decisions"):
        revisions[value["subject_id"]].append(value)

    for decisions in revisions.values():
        assert [decision["revision"] for decision in decisions] == list(range(len(decisions)))
        assert decisions[-1]["complete"]


def test_every_rule_is_seen(finished: Finished) -> None:
    rules = finished.summary["rules"]

    assert {rule for rule in Rule if not any(rule in name for name in rules)} == set()
    assert {"review to keep", "keep to remove"} <= finished.summary["revisions"].keys()


def test_early_removals_are_before_the_deadline(finished: Finished) -> None:
    early = [
        value
        for value in finished.tail("video_decisions")
        if value["revision"] == 0 and value["missing"] and value["reasons"][0].startswith(Rule.SURE)
    ]
    took = [datetime.fromisoformat(one["decided_at"]) - datetime.fromisoformat(one["opened_at"]) for one in early]

    assert len(early) == finished.summary["early_removals"]["videos"] > 0
    assert max(took) < timedelta(seconds=DEADLINE)


def test_no_user_is_told_twice_of_a_video(finished: Finished) -> None:
    told = Counter((value["user_id"], value["video_id"]) for value in finished.tail("video_notifications"))
    handled = [value["subject_id"] for value in finished.tail("video_notified")]

    assert set(told.values()) == {1}
    assert len(told) == finished.summary["notifications"]["notifications"]
    assert len(handled) == len(set(handled)) == VIDEOS


def test_nothing_is_in_the_dead_letters(finished: Finished) -> None:
    assert finished.tail("video_dead_letters") == []
