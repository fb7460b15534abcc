"""Kafka and the schema registry in containers, for the tests that need the real ones."""

from __future__ import annotations

import gc
import os
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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


def free_ports(count: int) -> Sequence[int]:
    """Ports of 127.0.0.1 that nobody listens at now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Broker:
    """A broker in a container, to be broken; `address` is where programs on this machine reach it."""

    def __init__(self, container: DockerContainer, address: str) -> None:
        self._container = container
        self.address = address

    def kill(self) -> None:
        """SIGKILL: it tells nobody."""
        self._container.get_wrapped_container().kill()

    def stop(self) -> None:
        """SIGTERM: it hands over what it leads, and ends."""
        self._container.get_wrapped_container().stop(timeout=60)

    def start(self) -> None:
        """Start it again with what it has stored; returns before it is ready."""
        self._container.get_wrapped_container().start()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It stands still: connections stay open, new ones are taken, and nothing is answered."""
        self._container.get_wrapped_container().pause()
        try:
            yield
        finally:
            self._container.get_wrapped_container().unpause()

    def run(self, *command: str) -> str:
        """Run a command in the container; what it printed. Raises `AssertionError` when it fails."""
        code, output = self._container.get_wrapped_container().exec_run(list(command))
        assert isinstance(output, bytes)
        text = output.decode(errors="replace")
        assert code == 0, text
        return text


_BROKER = {
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
}
LOGIN = ("worker", "secret")
"""The user and the password of the listener of this name."""

_LOGGING_IN = {
    "KAFKA_SASL_ENABLED_MECHANISMS": "PLAIN",
    "KAFKA_LISTENER_NAME_LOGIN_PLAIN_SASL_JAAS_CONFIG": (
        f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{LOGIN[0]}="{LOGIN[1]}";'
    ),
}
_SMALL = {"KAFKA_HEAP_OPTS": "-Xms128m -Xmx512m"}


def _replicated(replicas: int, in_sync: int) -> dict[str, str]:
    """As many replicas of everything, of which so many must have a record before it is acknowledged."""
    return {
        "KAFKA_DEFAULT_REPLICATION_FACTOR": str(replicas),
        "KAFKA_MIN_INSYNC_REPLICAS": str(in_sync),
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": str(replicas),
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": str(replicas),
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": str(replicas),
        "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": str(replicas),
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": str(in_sync),
    }


_ONE_BROKER = {
    **_BROKER,
    **_replicated(1, 1),
    "KAFKA_NODE_ID": "1",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:19093",
}


def _listening(listeners: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Settings for listeners, given by name as the address to listen at and the address that clients are told."""
    at = [f"{name}://{address}" for name, (address, _) in listeners.items()]
    return {
        "KAFKA_LISTENERS": ",".join([*at, "CONTROLLER://:19093"]),
        "KAFKA_ADVERTISED_LISTENERS": ",".join(f"{name}://{told}" for name, (_, told) in listeners.items()),
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": ",".join(
            f"{name}:{'SASL_PLAINTEXT' if name == 'LOGIN' else 'PLAINTEXT'}" for name in [*listeners, "CONTROLLER"]
        ),
        "KAFKA_INTER_BROKER_LISTENER_NAME": "NETWORK",
    }


def _reached_at(port: int) -> tuple[str, str]:
    # A client goes on at the address that the broker advertises: the port must be known before the broker starts.
    return f":{port}", f"127.0.0.1:{port}"


@contextmanager
def run_kafka(network: Network, login_port: int) -> Iterator[tuple[DockerContainer, str]]:
    """Kafka with one broker: its container, and the address to bootstrap from on this machine.

    At `login_port` it takes only those who log in as `LOGIN`.
    """
    (port,) = free_ports(1)
    at = {"HOST": _reached_at(port), "NETWORK": (":19092", INSIDE), "LOGIN": _reached_at(login_port)}
    listeners = _listening(at)
    container = (
        DockerContainer(KAFKA_IMAGE, network=network, network_aliases=["kafka"])
        .with_bind_ports(port, port)
        .with_bind_ports(login_port, login_port)
        .with_envs(**_ONE_BROKER, **listeners, **_LOGGING_IN)
    )
    with _started(container):
        yield container, f"127.0.0.1:{port}"


@contextmanager
def run_breakable_kafka(network: Network, proxy_port: int) -> Iterator[tuple[Broker, str]]:
    """Kafka with one broker that may be broken; and its address for a proxy that listens at `proxy_port`.

    Who comes by the proxy is told to go on at the proxy.
    """
    port, behind = free_ports(2)
    proxied = (f":{behind}", f"127.0.0.1:{proxy_port}")
    listeners = {"HOST": _reached_at(port), "PROXIED": proxied, "NETWORK": (":19092", "breakable:19092")}
    container = (
        DockerContainer(KAFKA_IMAGE, network=network, network_aliases=["breakable"])
        .with_bind_ports(port, port)
        .with_bind_ports(behind, behind)
        .with_envs(**_ONE_BROKER, **_SMALL, **_listening(listeners))
    )
    with _started(container):
        yield Broker(container, f"127.0.0.1:{port}"), f"127.0.0.1:{behind}"


HASTY_SESSION = 3.0
"""Seconds after which the controller of `run_hasty_kafka` gives up its broker."""

_HASTY = {
    "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "4000",
    "KAFKA_GROUP_CONSUMER_MIN_SESSION_TIMEOUT_MS": "4000",
    "KAFKA_GROUP_CONSUMER_SESSION_TIMEOUT_MS": "4000",
    "KAFKA_GROUP_CONSUMER_MIN_HEARTBEAT_INTERVAL_MS": "1000",
    "KAFKA_GROUP_CONSUMER_HEARTBEAT_INTERVAL_MS": "1000",
    "KAFKA_TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS": "1000",
    "KAFKA_BROKER_SESSION_TIMEOUT_MS": str(round(HASTY_SESSION * 1000)),
    "KAFKA_BROKER_HEARTBEAT_INTERVAL_MS": "500",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "2@hasty-controller:19093",
}


@contextmanager
def run_hasty_kafka(network: Network) -> Iterator[Broker]:
    """Kafka with one broker that may be broken, and that gives up silent workers in seconds, with either protocol.

    The controller is a container of its own. A broker that is its own controller and comes back from a SIGKILL leads
    its partitions until that controller misses it, and then, for a moment, does not: the transactions that are ended
    just then stay open for ever (4.3.1: "Couldn't find leader endpoint ... hence can be skipped"). For the same reason
    this broker is to be killed and never stopped: it would give up its partitions before its transactions have ended.
    """
    (port,) = free_ports(1)
    listeners = _listening({"HOST": _reached_at(port), "NETWORK": (":19092", "hasty:19092")})
    controller = (
        DockerContainer(KAFKA_IMAGE, network=network, network_aliases=["hasty-controller"])
        .with_envs(**_ONE_BROKER, **_SMALL)
        .with_envs(**_HASTY)
        .with_envs(KAFKA_PROCESS_ROLES="controller", KAFKA_NODE_ID="2", KAFKA_LISTENERS="CONTROLLER://:19093")
    )
    broker = (
        DockerContainer(KAFKA_IMAGE, network=network, network_aliases=["hasty"])
        .with_bind_ports(port, port)
        .with_envs(**_ONE_BROKER, **_SMALL, **listeners)
        .with_envs(**_HASTY)
        .with_envs(KAFKA_PROCESS_ROLES="broker")
        .with_envs(KAFKA_LISTENERS=listeners["KAFKA_LISTENERS"].removesuffix(",CONTROLLER://:19093"))
    )
    with controller, _started(broker):
        yield Broker(broker, f"127.0.0.1:{port}")


@contextmanager
def run_kafka_cluster(network: Network) -> Iterator[list[Broker]]:
    """Kafka with three brokers that may be broken: three replicas of everything, two of them in sync at least."""
    voters = ",".join(f"{number}@kafka-{number}:19093" for number in (1, 2, 3))
    containers = []
    with ExitStack() as started:
        for number, port in enumerate(free_ports(3), 1):
            name = f"kafka-{number}"
            listeners = _listening({"HOST": _reached_at(port), "NETWORK": (":19092", f"{name}:19092")})
            container = (
                DockerContainer(KAFKA_IMAGE, network=network, network_aliases=[name])
                .with_bind_ports(port, port)
                .with_envs(**_BROKER, **_replicated(3, 2), **_SMALL, **listeners)
                .with_envs(KAFKA_NODE_ID=str(number), KAFKA_CONTROLLER_QUORUM_VOTERS=voters)
            )
            # None is ready before two of them run.
            containers.append((started.enter_context(container), f"127.0.0.1:{port}"))
        for container, _ in containers:
            _READY.wait_until_ready(container)
        yield [Broker(container, address) for container, address in containers]


@contextmanager
def run_kafka_on_host() -> Iterator[str]:
    """Kafka with one broker in the network of this machine, to be measured without Docker's proxy; its address.

    Linux only. The heap is what Kafka's own start script sets.
    """
    address, controller = (f"127.0.0.1:{port}" for port in free_ports(2))
    container = (
        DockerContainer(KAFKA_IMAGE)
        .with_kwargs(network_mode="host")
        .with_envs(**_ONE_BROKER)
        .with_envs(
            KAFKA_HEAP_OPTS="-Xms1g -Xmx1g",
            KAFKA_LISTENERS=f"PLAINTEXT://{address},CONTROLLER://{controller}",
            KAFKA_ADVERTISED_LISTENERS=f"PLAINTEXT://{address}",
            KAFKA_LISTENER_SECURITY_PROTOCOL_MAP="PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            KAFKA_CONTROLLER_QUORUM_VOTERS=f"1@{controller}",
        )
    )
    with _started(container):
        yield address


_READY = LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(90)


def _started(container: DockerContainer) -> DockerContainer:
    return container.waiting_for(_READY)


@contextmanager
def run_registry(network: Network) -> Iterator[tuple[DockerContainer, str]]:
    """Apicurio, which keeps its schemas in the Kafka of this network: its container, and its Confluent-like URL."""
    api = "/apis/ccompat/v7"
    container = (
        DockerContainer(REGISTRY_IMAGE, network=network)
        .with_exposed_ports(8080)
        .with_envs(APICURIO_STORAGE_KIND="kafkasql", APICURIO_KAFKASQL_BOOTSTRAP_SERVERS=INSIDE)
        .waiting_for(HttpWaitStrategy(8080, f"{api}/subjects").for_status_code(200).with_startup_timeout(120))
    )
    with container:
        yield container, f"http://127.0.0.1:{container.get_exposed_port(8080)}{api}"
