"""Asks every few seconds whether what a worker needs can be reached, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from confluent_kafka import KafkaException

from braidstream.registry import client_for
from braidstream.settings import Settings
from braidstream.streaming import clients

EVERY = 5.0
PATIENCE = 3.0

Probe = Callable[[], str | None]
"""Asks once: why there is no answer, or None."""


def probes(settings: Settings, topic: str, patience: float = PATIENCE) -> Mapping[str, Probe]:
    """The probe of each check: of the broker, and of the registry where there is one.

    The broker is asked for one topic, since there may be thousands. `patience` is in seconds.
    """
    client = clients.admin(settings)

    def broker() -> str | None:
        try:
            client.list_topics(topic, timeout=patience)
        except KafkaException as error:
            return f"no broker answers at {settings.bootstrap_servers}: {error.args[0].str()}"
        return None

    found: dict[str, Probe] = {"broker_reachable": broker}
    if (registry := client_for(settings, patience)) is not None:
        found["registry_reachable"] = registry.unreachable
    return found


class Reachability:
    """Runs probes every few seconds until it is closed; `note` is given the check and what its probe says."""

    def __init__(
        self, probes: Mapping[str, Probe], note: Callable[[str, str | None], None], every: float = EVERY
    ) -> None:
        self._note = note
        self._every = every
        self._closed = threading.Event()
        for check, probe in probes.items():
            note(check, "not asked yet")
            threading.Thread(target=self._ask, args=(check, probe), name=check, daemon=True).start()

    def close(self) -> None:
        """Ask no more. What is being asked is not waited for."""
        self._closed.set()

    def _ask(self, check: str, probe: Probe) -> None:
        while not self._closed.is_set():
            self._note(check, probe())
            self._closed.wait(self._every)
