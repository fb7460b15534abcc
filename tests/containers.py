"""Kafka and the schema registry in containers, for the tests that need the real ones."""

from __future__ import annotations

import gc
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import docker
from docker.errors import DockerException
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HttpWaitStrategy, LogMessageWaitStrategy

KAFKA_IMAGE = "apache/kafka:4.3.1"
REGISTRY_IMAGE = "apicurio/apicurio-registry:3.3.3"

INSIDE = "kafka:19092"
"""Kafka's address for other containers of the same network."""

if "TESTCONTAINERS_RYUK_DISABLED" not in os.environ:
    # The fixtures remove their containers themselves. Ryuk, which also removes those of a test run that was killed,
    # is one more image to fetch: set TESTCONTAINERS_RYUK_DISABLED=false to have it.
    testcontainers_config.ryuk_disabled = True


@cache
def docker_missing() -> str | None:
    """Why Docker cannot be used; None when it can."""
    with warnings.catch_warnings():
        # The client leaves its socket open when it cannot connect.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            docker.from_env(timeout=10).close()  # it asks for the server's version
            reason = None
        except DockerException as error:
            reason = f"Docker cannot be reached: {error}"
        gc.collect()
    return reason


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


_ONE_BROKER = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "1",
    "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "1",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
}


@contextmanager
def run_kafka(network: Network) -> Iterator[tuple[DockerContainer, str]]:
    """Kafka with one broker: its container, and the address to bootstrap from on this machine."""
    # A client goes on at the address that the broker advertises: the port must be known before the broker starts.
    port = _free_port()
    container = (
        DockerContainer(KAFKA_IMAGE, network=network, network_aliases=["kafka"])
        .with_bind_ports(port, port)
        .with_envs(
            **_ONE_BROKER,
            KAFKA_LISTENERS=f"HOST://:{port},NETWORK://:19092,CONTROLLER://:19093",
            KAFKA_ADVERTISED_LISTENERS=f"HOST://127.0.0.1:{port},NETWORK://{INSIDE}",
            KAFKA_INTER_BROKER_LISTENER_NAME="NETWORK",
            KAFKA_LISTENER_SECURITY_PROTOCOL_MAP="HOST:PLAINTEXT,NETWORK:PLAINTEXT,CONTROLLER:PLAINTEXT",
            KAFKA_CONTROLLER_QUORUM_VOTERS="1@localhost:19093",
        )
    )
    with _started(container):
        yield container, f"127.0.0.1:{port}"


@contextmanager
def run_kafka_on_host() -> Iterator[str]:
    """Kafka with one broker in the network of this machine, to be measured without Docker's proxy; its address.

    Linux only. The heap is what Kafka's own start script sets.
    """
    address, controller = (f"127.0.0.1:{_free_port()}" for _ in range(2))
    container = (
        DockerContainer(KAFKA_IMAGE)
        .with_kwargs(network_mode="host")
        .with_envs(
            **_ONE_BROKER,
            KAFKA_HEAP_OPTS="-Xms1g -Xmx1g",
            KAFKA_LISTENERS=f"PLAINTEXT://{address},CONTROLLER://{controller}",
            KAFKA_ADVERTISED_LISTENERS=f"PLAINTEXT://{address}",
            KAFKA_LISTENER_SECURITY_PROTOCOL_MAP="PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            KAFKA_CONTROLLER_QUORUM_VOTERS=f"1@{controller}",
        )
    )
    with _started(container):
        yield address


def _started(container: DockerContainer) -> DockerContainer:
    return container.waiting_for(LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(90))


@contextmanager
def run_registry(network: Network) -> Iterator[str]:
    """Apicurio, which keeps its schemas in the Kafka of this network; its URL for Confluent's clients."""
    api = "/apis/ccompat/v7"
    container = (
        DockerContainer(REGISTRY_IMAGE, network=network)
        .with_exposed_ports(8080)
        .with_envs(APICURIO_STORAGE_KIND="kafkasql", APICURIO_KAFKASQL_BOOTSTRAP_SERVERS=INSIDE)
        .waiting_for(HttpWaitStrategy(8080, f"{api}/subjects").for_status_code(200).with_startup_timeout(120))
    )
    with container:
        yield f"http://127.0.0.1:{container.get_exposed_port(8080)}{api}"
