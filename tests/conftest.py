"""Fixtures for the tests that need Docker, and what becomes of those tests without it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.containers import (
    Broker,
    docker_missing,
    free_ports,
    run_breakable_kafka,
    run_kafka,
    run_registry,
)
from tests.toxiproxy import Proxy, Toxiproxy, run_toxiproxy, toxiproxy_missing

# A machine that is busy with other things is no failure.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make chaos` gives `--long`."""
    parser.addoption(
        "--long", action="store_true", help="Only the tests that are marked `long`, which else do not run."
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked `long`, or everything else."""
    long = config.getoption("--long")
    chosen: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        chosen[(item.get_closest_marker("long") is not None) == long].append(item)
    config.hook.pytest_deselected(items=chosen[False])
    items[:] = chosen[True]


class _ByContainers(LoadScopeScheduling):
    """Tests that share containers run in one process, those of another file in any."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "kafka" if file.startswith(("tests/contract/", "tests/integration/")) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByContainers:
    """With `-n 2`, as `make test` runs them, one process is busy with Kafka and the other with everything else."""
    return _ByContainers(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What is marked `docker` needs Docker."""
    if item.get_closest_marker("docker") is not None:
        _require(docker_missing())


def _require(missing: str | None) -> None:
    """Skip a test without what it needs, and say why; in CI that is a failure."""
    if missing is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true requires every test, and {missing}", pytrace=False)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """The network of the containers."""
    with Network() as created:
        yield created


@pytest.fixture(scope="session")
def login_port() -> int:
    """Where that Kafka takes those who log in."""
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def running_kafka(network: Network, login_port: int) -> Iterator[tuple[DockerContainer, str]]:
    """A Kafka that all tests share: its container and its address."""
    with run_kafka(network, login_port) as running:
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
def running_registry(network: Network, kafka: str) -> Iterator[tuple[DockerContainer, str]]:
    """A schema registry that all tests share: its container and its URL."""
    with run_registry(network) as running:
        yield running


@pytest.fixture(scope="session")
def registry(running_registry: tuple[DockerContainer, str]) -> str:
    """The URL of that registry, whose subjects are named by `topic_prefix` too."""
    return running_registry[1]


@pytest.fixture(scope="session")
def registry_container(running_registry: tuple[DockerContainer, str]) -> DockerContainer:
    """The container of that registry."""
    return running_registry[0]


@pytest.fixture
def topic_prefix() -> str:
    """What no other test has."""
    return f"test-{uuid.uuid4().hex[:12]}-"


@pytest.fixture(scope="session")
def toxiproxy() -> Iterator[Toxiproxy]:
    """Toxiproxy, for proxies of which each test closes what it has broken."""
    _require(toxiproxy_missing())
    with run_toxiproxy() as running:
        yield running


@pytest.fixture(scope="session")
def proxy_port() -> int:
    """Where `proxied_kafka` listens."""
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def breakable_kafka(network: Network, proxy_port: int) -> Iterator[tuple[Broker, str]]:
    """A Kafka that tests may break, and its address behind the proxy."""
    with run_breakable_kafka(network, proxy_port) as running:
        yield running


@pytest.fixture(scope="session")
def broker(breakable_kafka: tuple[Broker, str]) -> Broker:
    """The Kafka that tests may break; each mends it again."""
    return breakable_kafka[0]


@pytest.fixture(scope="session")
def proxied_kafka(toxiproxy: Toxiproxy, breakable_kafka: tuple[Broker, str], proxy_port: int) -> Proxy:
    """A proxy in front of that Kafka, which every client that comes by it stays behind."""
    return toxiproxy.proxy("kafka", breakable_kafka[1], proxy_port)
