"""The README's examples, as they stand there, run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from braidstream.avro import Codec, LocalSchemas
from braidstream.embedded import EMBEDDED_PROPERTIES, PARTITIONS, EmbeddedBroker
from braidstream.processes import Processes
from braidstream.settings import Settings
from braidstream.streaming import clients
from braidstream.writer import open_writer
from producer.sample import write_sample
from producer.trips import read_trips, rides
from rides.pipeline import RIDES
from schemas.decision import Decision
from tests.documents import README, ROOT, blocks

PATIENCE = 120.0


def write_example(folder: str, to: Path) -> None:
    """Write the README's files of this folder, and the empty one that makes it a package."""
    files = {block.file: block.code for block in blocks(README) if block.file.startswith(folder)}
    assert files, f"the README has no files in {folder}"
    for name, code in (files | {f"{folder}__init__.py": ""}).items():
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)


def read_decisions(settings: Settings, count: int, workers: Processes) -> list[Decision]:
    """So many decisions, or those that there are when patience ends."""
    topic = RIDES.decisions
    codec = Codec(topic.event_type, LocalSchemas(topic.event_type), topic.name)
    reader = clients.reader(settings, "test")
    reader.assign([TopicPartition(topic.name, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
    found: list[Decision] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < count and time.monotonic() < deadline:
        found += [codec.decode(record.value()) for record in reader.consume(count, 0.2) if record.error() is None]
        workers.require_alive()
    reader.close()
    return found


def test_a_model_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained, started and decided on by the commands of the README, on the embedded broker."""
    shutil.copytree(ROOT / "consumers", tmp_path / "consumers", ignore=shutil.ignore_patterns("__pycache__"))
    write_example("consumers/speed/", tmp_path)
    trips = tmp_path / "trips.parquet"
    write_sample(trips, 1000, seed=1, month="2023-01")
    monkeypatch.chdir(tmp_path)
    train = [sys.executable, "-m", "consumers.speed.train", "--trips", str(trips)]
    subprocess.run(train, check=True, timeout=PATIENCE)
    sent = list(rides(read_trips([trips]).rides.head(100)))

    with EmbeddedBroker() as broker, Processes(tmp_path) as workers:
        kafka = {"bootstrap.servers": broker.bootstrap_servers, **EMBEDDED_PROPERTIES}
        environ = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in kafka.items()}
        environ |= {"PROCESSING_GUARANTEE": "at_least_once", "PARTITIONS": str(PARTITIONS)}
        broker.create([topic.name for topic in RIDES.topics])
        workers.start("consumers.speed", environ)
        workers.start("decision_service", environ | {"EXPECTED_MODELS": "speed"})
        settings = Settings(kafka=kafka, partitions=PARTITIONS)
        with open_writer(RIDES.subjects, settings) as writer:
            for ride in sent:
                writer.send(ride)
        decisions = read_decisions(settings, len(sent), workers)

    evidence = [evidence for decision in decisions for evidence in decision.evidence]
    assert {decision.subject_id for decision in decisions} == {ride.ride_id for ride in sent}
    assert all(decision.complete for decision in decisions)
    assert {(e.model, 1 < e.value < 60) for e in evidence} == {("speed", True)}


def test_a_pipeline_is_added(tmp_path: Path) -> None:
    """Its topics, its policy and its own test."""
    write_example("moderation/", tmp_path)

    own_tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "moderation"]
    done = subprocess.run(own_tests, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
