"""What a worker answers over HTTP, and what those who ask make of it."""

from __future__ import annotations

import http.client
import json
import queue
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from braidstream.embedded import EmbeddedBroker
from braidstream.errors import SettingsError, UnavailableError
from braidstream.settings import Settings
from braidstream.streaming.observer import Turn
from braidstream.watching.client import address_in, address_of, ask, ask_by_log
from braidstream.watching.reachability import Reachability, probes
from braidstream.watching.server import Page, Server
from braidstream.watching.watcher import NOT_ASSIGNED, Watcher

HOST = "127.0.0.1"
READY = Turn(assigned=True, partitions=3, waiting_for=None, failing=None)


class Response(NamedTuple):
    status: int
    content_type: str | None
    body: str


def get(address: str, path: str) -> Response:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return Response(answer.status, answer.getheader("Content-Type"), answer.read().decode())
    finally:
        connection.close()


def make_watcher(stuck_after: float = 60.0) -> Watcher:
    return Watcher(stuck_after=stuck_after, stalled_after=60.0, metrics=True, now=lambda: 0)


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    with make_watcher() as made:
        yield made


@pytest.fixture
def address(watcher: Watcher) -> str:
    return watcher.serve(HOST, 0, {})


def checks(response: Response) -> dict[str, str | None]:
    found: dict[str, Any] = json.loads(response.body)["checks"]
    assert all(check["ok"] == (check["reason"] is None) for check in found.values())
    return {name: check["reason"] for name, check in found.items()}


# Readiness and liveness


def test_a_worker_that_starts_is_alive_and_not_ready(address: str) -> None:
    alive, ready = get(address, "/livez"), get(address, "/readyz")
    assert (alive.status, json.loads(alive.body)["alive"]) == (200, True)
    assert (ready.status, json.loads(ready.body)["ready"]) == (503, False)
    assert {name for name, reason in checks(ready).items() if reason is not None} == {"assigned", "restored"}
    assert ready.content_type == "application/json"


def test_a_worker_with_everything_is_ready(watcher: Watcher, address: str) -> None:
    watcher.turned(READY)
    response = get(address, "/readyz")
    assert response.status == 200
    assert (json.loads(response.body)["ready"], json.loads(response.body)["partitions"]) == (True, 3)


def test_a_member_without_partitions_is_ready(watcher: Watcher, address: str) -> None:
    watcher.turned(READY._replace(partitions=0))
    assert get(address, "/readyz").status == 200


@pytest.mark.parametrize(
    ("turn", "check", "reason"),
    [
        (READY._replace(assigned=False), "assigned", NOT_ASSIGNED),
        (READY._replace(waiting_for="restoring partitions [1]"), "restored", "restoring partitions [1]"),
        (READY._replace(failing="the commit did not come back"), "committing", "the commit did not come back"),
    ],
    ids=["assigned", "restored", "committing"],
)
def test_every_check_that_fails_says_why(watcher: Watcher, address: str, turn: Turn, check: str, reason: str) -> None:
    watcher.turned(turn)
    response = get(address, "/readyz")
    assert response.status == 503
    assert {name: why for name, why in checks(response).items() if why is not None} == {check: reason}
    assert get(address, "/livez").status == 200


def test_what_was_noted_of_a_model_is_a_check(watcher: Watcher, address: str) -> None:
    watcher.turned(READY)
    watcher.readiness.note("model_loaded", "models/duration is being loaded")
    assert checks(get(address, "/readyz"))["model_loaded"] == "models/duration is being loaded"
    watcher.readiness.note("model_loaded", None)
    assert get(address, "/readyz").status == 200


def test_a_loop_that_does_not_turn_is_not_alive() -> None:
    with make_watcher(stuck_after=0.0) as watcher:
        address = watcher.serve(HOST, 0, {})
        watcher.turned(READY)
        while get(address, "/livez").status == 200:
            pass
        assert "has not turned" in str(checks(get(address, "/livez"))["polling"])
        assert get(address, "/readyz").status == 503


# The server


def test_metrics_are_in_prometheus_text_format(address: str) -> None:
    response = get(address, "/metrics?name[]=x")
    assert response.status == 200
    assert str(response.content_type).startswith("text/plain; version=0.0.4")
    assert "# TYPE braidstream_records_consumed_total counter" in response.body


def test_other_paths_name_those_that_there_are(address: str) -> None:
    response = get(address, "/")
    assert response.status == 404
    assert "/livez /readyz /metrics" in response.body


def test_the_log_tells_where(watcher: Watcher) -> None:
    with capture_logs() as logged:
        address = watcher.serve(HOST, 0, {})
    assert [(line["event"], line["at"]) for line in logged] == [("listening", address)]
    assert address.startswith("http://127.0.0.1:")


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"HTTP_PORT={port} of HTTP_HOST=127.0.0.1 cannot be listened on"):
            Server(HOST, port, {})


def test_an_address_that_is_not_this_machines_is_named() -> None:
    with pytest.raises(SettingsError, match=r"HTTP_HOST=192\.0\.2\.1"):
        Server("192.0.2.1", 0, {})


def test_a_page_that_fails_is_logged_and_ends_nothing() -> None:
    def fail() -> Page:
        raise RuntimeError("no page")

    server = Server(HOST, 0, {"/bad": fail, "/good": lambda: Page(200, "text/plain", b"good")})
    try:
        with capture_logs() as logged:
            with pytest.raises(http.client.RemoteDisconnected):
                get(server.address, "/bad")
            assert get(server.address, "/good").body == "good"
        assert [line["event"] for line in logged] == ["a request was not answered"]
    finally:
        server.close()


def test_a_server_that_is_closed_answers_nobody() -> None:
    server = Server(HOST, 0, {})
    server.close()
    with pytest.raises(ConnectionRefusedError):
        get(server.address, "/")


def test_ipv6_addresses_have_brackets() -> None:
    assert address_of("::1", 8000) == "http://[::1]:8000"
    assert address_of("127.0.0.1", 8000) == "http://127.0.0.1:8000"


# Those who ask


def test_an_answer_has_what_fails(watcher: Watcher, address: str) -> None:
    watcher.turned(READY._replace(waiting_for="restoring partitions [1]"))
    assert ask(address) == (False, 3, {"restored": "restoring partitions [1]"})
    watcher.turned(READY)
    assert ask(address) == (True, 3, {})


@pytest.mark.parametrize("page", [b"{}", b"not json", b"[]"])
def test_what_is_no_worker_is_said(page: bytes) -> None:
    server = Server(HOST, 0, {"/readyz": lambda: Page(200, "text/plain", page)})
    try:
        with pytest.raises(UnavailableError, match="no worker answers at"):
            ask(server.address)
    finally:
        server.close()


@pytest.mark.parametrize(
    "line",
    [
        "2026-01-01T00:00:00Z [info     ] listening                      at={at} pages='/livez /readyz'",
        '{{"at": "{at}", "pages": "/livez /readyz", "event": "listening", "level": "info"}}',
    ],
    ids=["console", "json"],
)
def test_the_address_is_found_in_the_log(address: str, tmp_path: Path, line: str) -> None:
    log = tmp_path / "worker.log"
    log.write_text(f"waiting for the registry at=http://127.0.0.1:1/apis\n{line.format(at=address)}\nmore\n")
    assert address_in(log) == address
    answer = ask_by_log(log)
    assert answer is not None
    assert not answer.ready


def test_a_worker_that_has_not_told_its_address_does_not_answer(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    assert ask_by_log(log) is None
    log.write_text("waiting for the registry at=http://127.0.0.1:1/apis\n")
    assert ask_by_log(log) is None


# Reachability


def test_a_probe_is_asked_again_and_again() -> None:
    said: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
    answers = iter(["nobody answers", None, None])
    reachability = Reachability(
        {"broker_reachable": lambda: next(answers)}, lambda check, reason: said.put((check, reason)), every=0.001
    )
    heard = [said.get(timeout=10) for _ in range(3)]
    reachability.close()
    assert heard == [
        ("broker_reachable", "not asked yet"),
        ("broker_reachable", "nobody answers"),
        ("broker_reachable", None),
    ]


def test_a_broker_is_reachable_until_it_is_gone() -> None:
    with EmbeddedBroker() as broker:
        settings = Settings(kafka={"bootstrap.servers": broker.bootstrap_servers})
        [(check, probe)] = probes(settings, "ride_started", patience=10.0).items()
        assert (check, probe()) == ("broker_reachable", None)
    [gone] = probes(settings, "ride_started", patience=0.1).values()
    assert f"no broker answers at {broker.bootstrap_servers}" in str(gone())


def test_a_registry_is_probed_where_there_is_one() -> None:
    settings = Settings(kafka={"bootstrap.servers": "127.0.0.1:1"}, schema_registry_url="http://127.0.0.1:1")
    found = probes(settings, "ride_started")
    assert list(found) == ["broker_reachable", "registry_reachable"]
    assert "http://127.0.0.1:1" in str(found["registry_reachable"]())
