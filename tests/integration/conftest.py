"""Models for the workers, and the pipeline around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testcontainers.core.container import DockerContainer

from producer.sample import write_sample
from tests.containers import INSIDE
from tests.integration.ride_pipeline import RidePipeline, train_models


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic trips."""
    path = tmp_path_factory.mktemp("trips") / "green_tripdata_2024-03.parquet"
    write_sample(path, 20_000, seed=7, month="2024-03")
    return path


@pytest.fixture(scope="session")
def models(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both models, trained on the synthetic trips."""
    folder = tmp_path_factory.mktemp("models")
    train_models(sample, folder)
    return folder


@pytest.fixture
def pipeline(kafka: str, topic_prefix: str, models: Path, tmp_path: Path) -> Iterator[RidePipeline]:
    """The ride pipeline without a registry; nothing is started yet."""
    environment = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "TOPIC_PREFIX": topic_prefix, "BROKER_TIMEOUT": "60"}
    with RidePipeline(environment, models, tmp_path) as started:
        yield started


@pytest.fixture
def java_produce(kafka_container: DockerContainer) -> Callable[[str, list[str]], None]:
    """Produces records with these keys, by Java's own console producer in Kafka's container."""

    def produce(topic: str, keys: list[str]) -> None:
        lines = "\n".join(f"{key}:value" for key in keys)
        command = (
            f"printf '%s\\n' '{lines}' | /opt/kafka/bin/kafka-console-producer.sh --bootstrap-server {INSIDE} "
            f"--topic {topic} --property parse.key=true --property key.separator=:"
        )
        code, output = kafka_container.get_wrapped_container().exec_run(["sh", "-c", command])
        assert code == 0, output

    return produce
