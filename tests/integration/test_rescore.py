"""`braidstream rescore` and `braidstream trace` on real Kafka: a new version of a model scores again what is there."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from braidstream.cli.groups import Groups
from braidstream.models.folder import read_card
from braidstream.streaming import clients
from braidstream.streaming.ports import Partition
from braidstream.writer import open_writer
from consumers.duration.train import train
from producer.trips import read_trips
from rides.pipeline import RIDES
from tests import command_line
from tests.integration.ride_pipeline import RidePipeline
from tests.unit.events import prediction, ride

pytestmark = pytest.mark.docker

BAD_ZONE = 74


def rescore(pipeline: RidePipeline, model: Path, *arguments: str, code: int = 0) -> str:
    settings = {**pipeline.environment, "MODEL_URI": str(model)}
    done = command_line.run("rescore", "--group", "duration", *arguments, settings=settings)
    assert done.returncode == code, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())


def all_is_read(pipeline: RidePipeline, group: str, topic: str) -> bool:
    """Whether a group has committed a topic to its end, which may be the marker of a transaction."""
    name = pipeline.settings.named(topic)
    partitions = [Partition(name, number) for number in range(pipeline.settings.partitions)]
    groups = Groups(clients.admin(pipeline.settings), [pipeline.settings.named(group)])
    [found] = groups.of(partitions)
    logs = groups.logs(partitions)
    return all(log.end - found.committed.get(partition, 0) <= 1 for partition, log in logs.items())


def test_a_new_version_scores_again_and_revises_only_what_missed_the_model(
    pipeline: RidePipeline, models: Path, sample: Path, tmp_path: Path
) -> None:
    old, new = models / "duration", tmp_path / "new"
    train(read_trips([sample], outcomes=True), new, earliest=0.3)
    versions = read_card(old).version, read_card(new).version
    failing = pipeline.start("tests.integration.touchy_duration", FAILING_ZONE=str(BAD_ZONE), MODEL_URI=str(old))
    pipeline.start("decision_service", EXPECTED_MODELS="duration", DECISION_DEADLINE="2")
    pipeline.wait_until_started()
    with open_writer(RIDES.subjects, pipeline.settings) as writer:
        for number, zone in enumerate([75, 75, BAD_ZONE]):
            writer.send(ride(f"ride-{number}", pickup_zone=zone))
    pipeline.wait_for(lambda: pipeline.decided() == 3, "decisions, one of them partial")

    assert "has 1 member: stop its workers first" in rescore(pipeline, new, "--from", "beginning", "--yes", code=2)
    pipeline.stop(failing)
    said = rescore(pipeline, new, "--from", "beginning", "--yes")
    assert "3 records, before those that are new. " in said
    assert f"holds version {versions[1]}; the last predictions of duration are by version {versions[0]}." in said
    pipeline.start("consumers.duration", MODEL_URI=str(new))
    pipeline.wait_for(lambda: len(pipeline.records(RIDES.predictions.name)) == 5, "predictions of the new version")
    pipeline.wait_for(lambda: all_is_read(pipeline, "decision", RIDES.predictions.name), "all predictions to be read")

    made = {ride_id: [p.model_version for p in found] for (ride_id, _), found in pipeline.predictions().items()}
    assert made == {"ride-0": [*versions], "ride-1": [*versions], "ride-2": [versions[1]]}
    decisions = {ride_id: [(d.revision, d.complete) for d in found] for ride_id, found in pipeline.decisions().items()}
    assert decisions == {"ride-0": [(0, True)], "ride-1": [(0, True)], "ride-2": [(0, False), (1, True)]}

    shown = command_line.run("trace", "ride-0", "--since", "1h", "--json", settings=pipeline.environment)
    entries = json.loads(shown.stdout)["timeline"]
    assert [(entry["what"], entry["note"]) for entry in entries] == [
        ("event", None),
        ("prediction", None),
        ("decision", None),
        ("prediction", "another version"),
    ]
    bad = command_line.run("trace", "ride-2", settings=pipeline.environment).stdout
    kinds = [line[27:].split("  ")[0] for line in bad.splitlines() if line[2:3] == ":"]
    assert kinds == ["event", "dead letter", "decision 0", "prediction", "decision 1"]


def test_what_is_deleted_cannot_be_scored_again(pipeline: RidePipeline, models: Path) -> None:
    settings = pipeline.settings
    with open_writer(RIDES.subjects, settings) as rides, open_writer(RIDES.predictions, settings) as predictions:
        for number in range(20):
            rides.send(ride(f"ride-{number}"))
        predictions.send(prediction())
    ends = Counter(message.partition() or 0 for message in pipeline.records(RIDES.subjects.name))
    name = settings.named(RIDES.subjects.name)
    group = {"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.named("duration")}
    with closing(Consumer(group)) as consumer:
        # Beyond the end, as of a group that has read another topic of this name.
        beyond = [TopicPartition(name, number, end + 1000) for number, end in ends.items()]
        consumer.commit(offsets=beyond, asynchronous=False)
    duration = models / "duration"
    assert "20 records, before those that are new." in rescore(pipeline, duration, "--from", "1h", "--dry-run")
    assert "Nothing to be scored again" in rescore(pipeline, duration, "--from", "0s", "--yes")

    client, [(number, end), *_] = clients.admin(settings), ends.most_common()
    assert end > 1
    deleted = TopicPartition(name, number, 1)
    client.delete_records([deleted])[deleted].result(20)
    refused = rescore(pipeline, duration, "--from", "1h", "--yes", code=2)
    assert "has not all of that time any more, since older records were deleted: it goes back to" in refused
    planned = rescore(pipeline, duration, "--from", "beginning", "--dry-run")
    assert "again, from the oldest that are still there:" in planned
    assert "19 records, before those that are new." in planned
