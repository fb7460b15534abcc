"""Asks a worker's HTTP server how it is, for health checks and for whoever starts workers."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from braidstream.errors import UnavailableError

LISTENING = "listening"
"""The event of the log line that tells a worker's address."""

_ADDRESS = re.compile(rf"^(?=.*\b{LISTENING}\b).*?(http://[\w.:\[\]-]+:\d+)", re.MULTILINE)


class Answer(NamedTuple):
    """What a worker says of itself: whether it is ready, its partitions, and why each failing check fails."""

    ready: bool
    partitions: int
    reasons: Mapping[str, str]


def address_of(host: str, port: int) -> str:
    """The address as a URL without a path; IPv6 addresses get their brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def address_in(log: Path) -> str | None:
    """The address that a worker has told in its log; None when it has not yet."""
    try:
        found = _ADDRESS.search(log.read_text(errors="replace"))
    except OSError:
        return None
    return found[1] if found else None


def ask_by_log(log: Path) -> Answer | None:
    """Ask the worker that writes this log; None when it does not answer, or not yet."""
    if (address := address_in(log)) is None:
        return None
    try:
        return ask(address)
    except UnavailableError:
        return None


def ask(address: str, timeout: float = 5.0) -> Answer:
    """Ask `/readyz` at this address; raises `UnavailableError` when no worker answers within `timeout` seconds."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request("GET", "/readyz")
        body = json.loads(connection.getresponse().read())
        reasons = {name: check["reason"] for name, check in body["checks"].items() if not check["ok"]}
        return Answer(body["ready"], body["partitions"], reasons)
    except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError) as error:
        raise UnavailableError(f"no worker answers at {address} (HTTP_HOST, HTTP_PORT): {error!r}") from error
    finally:
        connection.close()
