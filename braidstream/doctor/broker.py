"""Can a broker be reached, and does it keep transactions?"""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from braidstream.doctor.findings import Finding, count, ok, wrong
from braidstream.doctor.settings import DoctorSettings
from braidstream.errors import SettingsError
from braidstream.streaming import clients, topics

CHECK = "broker"
PATIENCE = 5.0
"""Seconds to wait for a broker."""

_ASK = 1.0
_ELSE = (
    "is it running, is KAFKA_BOOTSTRAP_SERVERS right, and does that port want TLS or a login (KAFKA_SECURITY_PROTOCOL)?"
)


class Unreachable(Exception):
    """No broker can be asked: the finding says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.says)
        self.finding = finding


def reach(settings: DoctorSettings, patience: float = PATIENCE) -> tuple[AdminClient, Any]:
    """A client, and the cluster's metadata; raises `Unreachable`."""
    heard: list[KafkaError] = []
    try:
        servers = settings.bootstrap_servers
        client = clients.admin(settings, on_error=heard.append)
    except SettingsError as error:
        mend = () if "bootstrap.servers" in settings.kafka else ("export KAFKA_BOOTSTRAP_SERVERS=localhost:9092",)
        raise Unreachable(wrong(CHECK, str(error), *mend)) from error
    deadline = time.monotonic() + patience
    while True:
        try:
            return client, client.list_topics(timeout=_ASK)
        except KafkaException as error:
            client.poll(0)
            reasons = [told for told in heard if told.code() != KafkaError._ALL_BROKERS_DOWN] or [error.args[0]]
            told = next(filter(_advice, reasons), reasons[0])
            if _advice(told) or time.monotonic() >= deadline:
                advice = _advice(told) or _ELSE
                raise Unreachable(wrong(CHECK, f"none can be asked at {servers}: {advice} ({told.str()})")) from error


def _advice(error: KafkaError) -> str | None:
    """What to look at, of errors that do not pass."""
    if error.code() == KafkaError._AUTHENTICATION:
        return "the login is refused: see KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
    if error.code() == KafkaError._SSL or "SSL handshake failed" in error.str():
        return "TLS fails: does that port speak it, as KAFKA_SECURITY_PROTOCOL says, and is its certificate known?"
    return "there is no such host" if error.code() == KafkaError._RESOLVE else None


def reached(settings: DoctorSettings, metadata: Any) -> Finding:
    """What kind of broker this is."""
    if not topics.is_embedded(metadata):
        return ok(
            CHECK, f"Kafka answers at {settings.bootstrap_servers}, with {count(len(metadata.brokers), 'broker')}"
        )
    said = f"librdkafka's embedded one answers at {settings.bootstrap_servers}, without transactions"
    if settings.processing_guarantee == "exactly_once":
        return wrong(
            CHECK, f"{said}: workers refuse to start exactly once", "export PROCESSING_GUARANTEE=at_least_once"
        )
    return ok(CHECK, f"{said}; it is for trying out")
