"""The registry client against a server: what it asks, and what it makes of every kind of answer."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Message
from structlog.testing import capture_logs

from braidstream.avro import LocalSchemas
from braidstream.errors import RetriableError, SettingsError, UnavailableError
from braidstream.processors import scoring_processor
from braidstream.registry import RegistryClient, RegistryRefusal, RegistrySchemas, _patiently
from braidstream.settings import WorkerSettings
from braidstream.streaming.ports import Headers
from rides.pipeline import RIDES
from tests.unit.registry_server import NOT_FOUND, Registry, run_registry

TYPE = RIDES.subjects.event_type
SUBJECT = "ride_started-value"
FIND = f"POST /subjects/{SUBJECT}"
REGISTER = f"{FIND}/versions"
REQUIRE = f"PUT /config/{SUBJECT}"
LARGEST_ID = 2**31 - 1


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with run_registry() as server:
        yield server


def schemas_of(registry: Registry) -> RegistrySchemas:
    return RegistrySchemas(RegistryClient(registry.url), LocalSchemas(TYPE), lambda call: call())


def test_a_schema_that_is_there_is_found_and_read_by_its_id(registry: Registry) -> None:
    registry.answers = {
        FIND: (200, b'{"subject":"ride_started-value","version":1,"id":7}'),
        "GET /schemas/ids/7": (200, json.dumps({"schema": TYPE.latest.text}).encode()),
    }
    assert schemas_of(registry).id_of(TYPE, SUBJECT) == 7
    assert schemas_of(registry).schema(7) == TYPE.latest
    assert registry.asked == [(FIND, {"schema": TYPE.latest.text}), ("GET /schemas/ids/7", None)]


def test_a_new_schema_is_registered_under_full_transitive_compatibility(registry: Registry) -> None:
    registry.answers = {REQUIRE: (200, b'{"compatibility":"FULL_TRANSITIVE"}'), REGISTER: (200, b'{"id":8}')}
    assert schemas_of(registry).id_of(TYPE, SUBJECT) == 8
    assert registry.asked == [
        (FIND, {"schema": TYPE.latest.text}),
        (REQUIRE, {"compatibility": "FULL_TRANSITIVE"}),
        (REGISTER, {"schema": TYPE.latest.text}),
    ]


def test_another_worker_that_requires_the_same_at_the_same_moment_is_no_refusal(registry: Registry) -> None:
    registry.answers = {REQUIRE: (409, b'{"message":"exists"}'), REGISTER: (200, b'{"id":8}')}
    assert schemas_of(registry).id_of(TYPE, SUBJECT) == 8


def test_an_incompatible_schema_is_refused_by_name(registry: Registry) -> None:
    registry.answers = {REQUIRE: (200, b'{"compatibility":"FULL_TRANSITIVE"}'), REGISTER: (409, b'{"message":"no"}')}
    with pytest.raises(SettingsError, match=rf"schema of {SUBJECT} is not compatible \(FULL_TRANSITIVE\)"):
        schemas_of(registry).id_of(TYPE, SUBJECT)


def test_the_credentials_are_sent_and_never_told(registry: Registry) -> None:
    credentials = base64.b64encode(b"ada:s3cret").decode()
    client = RegistryClient(registry.url, "ada", "s3cret")
    registry.answers = {FIND: (401, b"Unauthorized"), REGISTER: (500, b"Oops")}
    with pytest.raises(RegistryRefusal) as refusal:
        client.find(SUBJECT, "{}")
    with pytest.raises(RetriableError) as failure:
        client.register(SUBJECT, "{}")
    assert registry.authorization == f"Basic {credentials}"
    for told in (str(refusal.value), str(failure.value)):
        assert "s3cret" not in told
        assert credentials not in told


@pytest.mark.parametrize(
    "answer",
    [(500, b"Oops"), (429, b"slow down"), (200, b"<html>"), (200, b"[]"), (200, b"null"), (200, b"{}")],
    ids=str,
)
def test_what_is_no_registrys_answer_may_pass(registry: Registry, answer: tuple[int, bytes]) -> None:
    registry.answers = {FIND: answer, "GET /schemas/ids/7": answer, REQUIRE: answer}
    client = RegistryClient(registry.url)
    calls: list[Callable[[], object]] = [
        lambda: client.find(SUBJECT, "{}"),
        lambda: client.schema(7),
        lambda: client.require(SUBJECT, "FULL_TRANSITIVE"),
    ]
    for call in calls:
        with pytest.raises(RetriableError, match=rf"the registry at {registry.url}"):
            call()


def test_a_registry_that_does_not_answer_in_time_is_given_up_by_name(registry: Registry) -> None:
    registry.answers = {FIND: (503, b"starting")}
    client, waits = RegistryClient(registry.url), list[float]()
    with (
        capture_logs() as logs,
        pytest.raises(UnavailableError, match=r"no answer within 25 s \(BROKER_TIMEOUT\): .* HTTP 503: starting"),
    ):
        _patiently(lambda: client.find(SUBJECT, "{}"), 25, lambda: sum(waits), waits.append)
    assert sum(waits) == 25
    assert [(line["event"], line["giving_up_after_seconds"]) for line in logs] == [("waiting for the registry", 25)] * 3


def test_a_registry_that_comes_late_is_waited_for(registry: Registry) -> None:
    registry.answers = {FIND: (503, b"starting")}
    client, waits = RegistryClient(registry.url), list[float]()

    def start(seconds: float) -> None:
        waits.append(seconds)
        registry.answers = {FIND: (200, b'{"id":7}')}

    with capture_logs() as logs:
        assert _patiently(lambda: client.find(SUBJECT, "{}"), 5, lambda: sum(waits), start) == 7
    assert [line["event"] for line in logs] == ["waiting for the registry", "the registry answers"]
    assert logs[1]["after_seconds"] == 1


def test_a_schema_that_cannot_be_looked_up_now_is_named(registry: Registry) -> None:
    registry.answers = {"GET /schemas/ids/9": (503, b"starting")}
    schemas = RegistrySchemas(
        RegistryClient(registry.url), LocalSchemas(RIDES.subjects.event_type), lambda call: call()
    )
    with pytest.raises(
        RetriableError, match=r"schema 9 has to be looked up, and the registry at .* HTTP 503: starting"
    ):
        schemas.schema(9)


@pytest.mark.parametrize(
    ("schema_id", "answer", "is_asked"),
    [
        (9, NOT_FOUND, True),
        (9, (200, b'{"schemaType":"JSON","schema":"{\\"type\\":\\"object\\",\\"properties\\":{}}"}'), True),
        (9, (200, b'{"schemaType":"PROTOBUF","schema":"syntax = \\"proto3\\";"}'), True),
        (LARGEST_ID, NOT_FOUND, True),
        (LARGEST_ID + 1, NOT_FOUND, False),
        (2**32 - 1, (500, b"too large"), False),
    ],
    ids=["unknown", "JSON schema", "Protobuf", "largest", "larger", "largest of 4 bytes"],
)
def test_a_record_of_a_schema_that_cannot_be_known_is_a_dead_letter(
    registry: Registry, schema_id: int, answer: tuple[int, bytes], is_asked: bool
) -> None:
    asks = f"GET /schemas/ids/{schema_id}"
    registry.answers = {
        FIND: (200, b'{"id":1}'),
        "POST /subjects/predictions-value": (200, b'{"id":2}'),
        asks: answer,
    }
    processor = scoring_processor(
        RIDES, WorkerSettings(), schemas_of(registry), "tip", lambda events: [], model=("tip", "1"), clock=lambda: 0
    )
    value = b"\x00" + schema_id.to_bytes(4, "big") + b"abc"
    work = processor.prepare([Message(topic="ride_started", partition=0, offset=3, value=value)])(dict)
    [letter] = work.records
    topic, _, _, content, headers = letter
    assert (topic, content) == ("dead_letters", value)
    assert reason(headers).startswith(f"schema id {schema_id} is not known: ")
    assert (asks in [call for call, _ in registry.asked]) is is_asked


def reason(headers: Headers) -> str:
    return (dict(headers)["__connect.errors.exception.message"] or b"").decode()


@pytest.mark.parametrize("url", ["registry:8080", "http://", "http://host:x", "ftp://host/"])
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(SettingsError, match="SCHEMA_REGISTRY_URL is no address"):
        RegistryClient(url)


def test_a_password_in_the_url_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="SCHEMA_REGISTRY_PASSWORD") as refused:
        RegistryClient("http://user:geheim@host:8080")
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("answer", [(200, b'{"compatibilityLevel":"NONE"}'), (403, b"Forbidden"), NOT_FOUND])
def test_a_registry_that_answers_is_reachable(registry: Registry, answer: tuple[int, bytes]) -> None:
    registry.answers = {"GET /config": answer}
    assert RegistryClient(registry.url).unreachable() is None


def test_a_registry_that_fails_is_not_reachable(registry: Registry) -> None:
    registry.answers = {"GET /config": (503, b"starting")}
    assert "HTTP 503: starting" in str(RegistryClient(registry.url).unreachable())


def test_a_registry_that_hangs_is_not_reachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        reason = RegistryClient(url, timeout=0.1).unreachable()
    assert f"the registry at {url} does not answer as one" in str(reason)
    assert "timed out" in str(reason)
