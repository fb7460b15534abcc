"""Fixtures for the tests that need Docker, and what becomes of those tests without it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from tests.containers import docker_missing, run_kafka, run_registry

# A machine that is busy with other things is no failure.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `docker` without Docker, and say why; in CI that is a failure."""
    if item.get_closest_marker("docker") is None or (reason := docker_missing()) is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true requires every test, and {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """The network of the containers."""
    with Network() as created:
        yield created


@pytest.fixture(scope="session")
def running_kafka(network: Network) -> Iterator[tuple[DockerContainer, str]]:
    """A Kafka that all tests share: its container and its address."""
    with run_kafka(network) as running:
        yield running


@pytest.fixture(scope="session")
def kafka(running_kafka: tuple[DockerContainer, str]) -> str:
    """The bootstrap servers of that Kafka: a test takes `topic_prefix` for its topics and groups."""
    return running_kafka[1]


@pytest.fixture(scope="session")
def kafka_container(running_kafka: tuple[DockerContainer, str]) -> DockerContainer:
    """The container of that Kafka."""
    return running_kafka[0]


@pytest.fixture(scope="session")
def registry(network: Network, kafka: str) -> Iterator[str]:
    """The URL of a schema registry, whose subjects are named by `topic_prefix` too."""
    with run_registry(network) as url:
        yield url


@pytest.fixture
def topic_prefix() -> str:
    """What no other test has."""
    return f"test-{uuid.uuid4().hex[:12]}-"
