"""The moderation demo on the embedded broker, and on real Kafka, exactly once, read again by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from moderation.decisions.policy import Rule
from moderation.demo.story import SERVICES
from tests import command_line
from tests.documents import ROOT

PROJECT = ROOT / "examples" / "moderation"
VIDEOS = 1000
DEADLINE = 4.0
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(PROJECT)])}

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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demos run: the second finds the models that the first has trained."""
    return tmp_path_factory.mktemp("moderation")


@pytest.fixture(scope="module")
def finished(kafka: str, folder: Path) -> Finished:
    """The demo on Kafka, run once for all tests."""
    settings = {**ENVIRONMENT, "KAFKA_BOOTSTRAP_SERVERS": kafka, "TOPIC_PREFIX": f"test-{uuid4().hex[:12]}-"}
    return Finished(run_demo(folder, settings), settings)


def run_demo(folder: Path, settings: Mapping[str, str]) -> Record:
    """Run the demo to its end; its summary."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_")}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "moderation.demo", "--json"),
            *("--videos", str(VIDEOS), "--deadline", str(DEADLINE)),
        ],
        cwd=folder,
        env={**inherited, **settings},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary: Record = json.loads(done.stdout)
    return summary


def assert_everything_was_seen(summary: Record) -> None:
    """Every video predicted and decided, every rule of the policy met, revisions of both kinds, nobody told twice."""
    assert summary["videos"] == VIDEOS
    assert summary["predictions"] == dict.fromkeys(SERVICES, VIDEOS)
    assert summary["decisions"] == {"complete": VIDEOS, "partial": 0, "missing": 0}
    assert {rule for rule in Rule if not any(rule in name for name in summary["rules"])} == set()
    assert summary["early_removals"]["before_deadline"] == summary["early_removals"]["videos"] > 0
    assert {"review to keep", "keep to remove"} <= summary["revisions"].keys()
    assert summary["notifications"]["notifications"] > 0
    assert summary["notifications"]["repeats"] == 0
    assert summary["dead_letters"] == 0
    assert summary["quality"]["precision"] > 0.8


@pytest.mark.long
def test_the_demo_on_the_embedded_broker(folder: Path) -> None:
    assert_everything_was_seen(run_demo(folder, ENVIRONMENT))


@pytest.mark.docker
def test_the_demo_on_kafka(finished: Finished) -> None:
    assert_everything_was_seen(finished.summary)


@pytest.mark.docker
def test_every_video_is_predicted_once_by_every_service(finished: Finished) -> None:
    videos = [value["video_id"] for value in finished.tail("video_uploaded")]
    predicted = Counter((value["subject_id"], value["model"]) for value in finished.tail("video_predictions"))

    assert len(set(videos)) == len(videos) == VIDEOS
    assert predicted == Counter((video, model) for video in videos for model in SERVICES)


@pytest.mark.docker
def test_every_video_is_decided_and_its_revisions_are_in_order(finished: Finished) -> None:
    revisions: dict[str, list[Record]] = {value["video_id"]: [] for value in finished.tail("video_uploaded")}
    for value in finished.tail("video_decisions"):
        revisions[value["subject_id"]].append(value)

    for decisions in revisions.values():
        assert [decision["revision"] for decision in decisions] == list(range(len(decisions)))
        assert decisions[-1]["complete"]


@pytest.mark.docker
def test_early_removals_are_before_the_deadline(finished: Finished) -> None:
    early = [
        value
        for value in finished.tail("video_decisions")
        if value["revision"] == 0 and value["missing"] and value["reasons"][0].startswith(Rule.SURE)
    ]
    took = [datetime.fromisoformat(one["decided_at"]) - datetime.fromisoformat(one["opened_at"]) for one in early]

    assert len(early) == finished.summary["early_removals"]["videos"] > 0
    assert max(took) < timedelta(seconds=DEADLINE)


@pytest.mark.docker
def test_no_user_is_told_twice_of_a_video(finished: Finished) -> None:
    told = Counter((value["user_id"], value["video_id"]) for value in finished.tail("video_notifications"))
    handled = [value["subject_id"] for value in finished.tail("video_notified")]

    assert set(told.values()) == {1}
    assert len(told) == finished.summary["notifications"]["notifications"]
    assert len(handled) == len(set(handled)) == VIDEOS


@pytest.mark.docker
def test_nothing_is_in_the_dead_letters(finished: Finished) -> None:
    assert finished.tail("video_dead_letters") == []
