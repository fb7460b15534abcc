"""The registry is down when workers start, and while they run."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from braidstream.avro import AvroSchema, write
from braidstream.registry import RegistryClient
from braidstream.streaming.clients import plain_producer
from producer.trips import read_trips, rides
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.integration.ride_pipeline import RidePipeline
from tests.integration.traffic import Traffic
from tests.toxiproxy import Proxy, Toxiproxy

pytestmark = pytest.mark.docker

WORKERS = ("consumers.duration", "consumers.tip", "decision_service")


@pytest.fixture
def proxied_registry(toxiproxy: Toxiproxy, registry: str) -> Proxy:
    return toxiproxy.proxy(f"registry-{uuid.uuid4().hex}", urlsplit(registry).netloc)


def newer_schema() -> AvroSchema:
    """A version of the rides' schema that no worker has in its files."""
    schema = json.loads(RIDES.subjects.event_type.latest.text)
    schema["fields"].append({"name": "vendor", "type": ["null", "string"], "default": None})
    return AvroSchema.from_text(json.dumps(schema))


def send_newer(pipeline: RidePipeline, registry: str, ride: RideStarted) -> None:
    """Send a ride of which only the registry knows the schema."""
    schema, topic = newer_schema(), pipeline.settings.named(RIDES.subjects.name)
    schema_id = RegistryClient(registry).register(f"{topic}-value", schema.text)
    producer: Any = plain_producer(pipeline.settings, "test")
    value = write(schema_id, schema, {**ride.model_dump(), "vendor": "somebody"})
    producer.produce(topic, value=value, key=ride.ride_id.encode())
    assert producer.flush(20) == 0


def log_lines(folder: Path, event: str) -> list[dict[str, Any]]:
    """What the workers have logged of this event."""
    lines = [json.loads(line) for log in folder.glob("*.log") for line in log.read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def test_workers_wait_for_the_registry_when_they_need_it_and_only_then(  # noqa: PLR0917 - fixtures
    kafka: str, registry: str, proxied_registry: Proxy, topic_prefix: str, models: Path, sample: Path, tmp_path: Path
) -> None:
    environment = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "TOPIC_PREFIX": topic_prefix, "SCHEMA_REGISTRY_URL": registry}
    settings = {
        "SCHEMA_REGISTRY_URL": f"http://{proxied_registry.address}{urlsplit(registry).path}",
        "LOG_FORMAT": "json",
    }
    source = rides(read_trips([sample]).rides)
    with RidePipeline(environment, models, tmp_path) as pipeline:
        traffic = Traffic(source, [pipeline.settings])
        with proxied_registry.down():
            traffic.send(20)
            workers = [pipeline.start(module, **settings) for module in WORKERS]
            pipeline.wait_for(
                lambda: len(log_lines(tmp_path, "waiting for the registry")) >= len(WORKERS), "workers that wait"
            )
        pipeline.wait_for(lambda: pipeline.decided() == 20, "decisions when the registry has come")

        with proxied_registry.down():
            traffic.send(20)
            pipeline.wait_for(lambda: pipeline.decided() == 40, "decisions of rides whose schema is known")
            newer = next(source)
            send_newer(pipeline, registry, newer)
            traffic.send(20)
            pipeline.wait_for(
                lambda: len(log_lines(tmp_path, "going back to the committed offsets")) >= len(WORKERS),
                "workers that try again",
            )
        pipeline.wait_for(lambda: pipeline.decided() == 61, "every decision")
        pipeline.wait_for(lambda: len(log_lines(tmp_path, "works again")) == len(WORKERS), "workers that say so")
        pipeline.assert_each_ride_once([*traffic.sent, newer.ride_id])
        assert [worker.poll() for worker in workers] == [None] * len(workers)

    assert len(log_lines(tmp_path, "the registry answers")) == len(WORKERS)
    for line in log_lines(tmp_path, "going back to the committed offsets"):
        assert "has to be looked up, and the registry at " in line["reason"]
