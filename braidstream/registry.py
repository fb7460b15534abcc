"""Schema ids: from a schema registry (Confluent's REST API), or from the repo's files without one.

https://docs.confluent.io/platform/current/schema-registry/develop/api.html; Apicurio serves it under
`/apis/ccompat/v7`.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog

from braidstream.avro import AvroSchema, EventType, LocalSchemas, SchemaSource
from braidstream.errors import RetriableError, SettingsError, UnavailableError
from braidstream.settings import Settings

COMPATIBILITY = "FULL_TRANSITIVE"
"""Parts are deployed and rolled back independently and old records are read: every version reads every other."""

_POLL = 1.0
_SAY_EVERY = 10.0
_CALL_TIMEOUT = 10.0
_LARGEST_ID = (1 << 31) - 1
_CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
T = TypeVar("T")


class RegistryRefusal(Exception):
    """The registry answered, with an error: its HTTP `status`, and the message it gave."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status


class RegistryClient:
    """The few calls of the REST API that are in use.

    Each raises `RegistryRefusal` on a 4xx answer, and `RetriableError` on anything that may pass.
    """

    def __init__(
        self, url: str, user: str | None = None, password: str | None = None, timeout: float = _CALL_TIMEOUT
    ) -> None:
        """`timeout` in seconds bounds each call."""
        self._url = _checked(url)
        self._timeout = timeout
        self._headers = {"Accept": _CONTENT_TYPE, "Content-Type": _CONTENT_TYPE}
        if user is not None:
            credentials = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {credentials}"

    def find(self, subject: str, schema: str) -> int | None:
        """The id of this schema under this subject; None when it is not registered there."""
        try:
            return self._id("POST", _subject(subject), schema)
        except RegistryRefusal as error:
            if error.status == 404:
                return None
            raise

    def register(self, subject: str, schema: str) -> int:
        """Register a schema; refused with status 409 when it is incompatible. Safe to repeat."""
        return self._id("POST", f"{_subject(subject)}/versions", schema)

    def require(self, subject: str, compatibility: str) -> None:
        """Set how the versions of a subject have to be compatible. Safe to repeat."""
        try:
            self._call(
                "PUT",
                _config(subject),
                {"compatibility": compatibility},
                "compatibility",
            )
        except RegistryRefusal as error:
            # Apicurio's answer to the second of two that set it at the same moment.
            if error.status != 409:
                raise

    def compatibility(self, subject: str | None) -> str:
        """How the versions of a subject have to be compatible; without one, those of subjects that do not say."""
        if subject is not None:
            try:
                return str(self._call("GET", _config(subject), None, "compatibilityLevel"))
            except RegistryRefusal as error:
                if error.status != 404:
                    raise
        return str(self._call("GET", "/config", None, "compatibilityLevel"))

    def is_compatible(self, subject: str, schema: str) -> bool:
        """Whether this schema could be registered."""
        try:
            return bool(
                self._call("POST", f"/compatibility{_subject(subject)}/versions", {"schema": schema}, "is_compatible")
            )
        except RegistryRefusal as error:
            if error.status == 404:
                return True  # there is no version yet
            raise

    def schema(self, schema_id: int) -> str | None:
        """The text of a schema; None when the id is not known."""
        try:
            return str(self._call("GET", f"/schemas/ids/{schema_id}", None, "schema"))
        except RegistryRefusal as error:
            if error.status == 404:
                return None
            raise

    def unreachable(self) -> str | None:
        """Why no registry answers; None when one does, be it with a refusal."""
        try:
            self._call("GET", "/config", None, "compatibilityLevel")
        except RegistryRefusal:
            return None
        except RetriableError as error:
            return str(error)
        return None

    def _id(self, method: str, path: str, schema: str) -> int:
        found = self._call(method, path, {"schema": schema}, "id")
        if not isinstance(found, int):
            raise RetriableError(f"the registry at {self._url} answers with the id {found!r}")
        return found

    def _call(self, method: str, path: str, body: object, field: str) -> Any:
        """One field of the answer."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self._url}{path}", data, self._headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:  # noqa: S310
                return json.load(response)[field]
        except urllib.error.HTTPError as error:
            message = _message(error)
            if 400 <= error.code < 500 and error.code not in (408, 429):
                raise RegistryRefusal(error.code, message) from None
            raise RetriableError(f"the registry at {self._url} answers HTTP {error.code}: {message}") from error
        except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else repr(error)
            raise RetriableError(f"the registry at {self._url} does not answer as one: {reason}") from error


def _checked(url: str) -> str:
    """The URL without a slash at its end; raises `SettingsError`, which does not show a password."""
    try:
        parts = urllib.parse.urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        raise SettingsError("SCHEMA_REGISTRY_URL is no address such as http://registry:8080/apis/ccompat/v7")
    if "@" in parts.netloc:
        raise SettingsError(
            "SCHEMA_REGISTRY_URL holds a user name: set SCHEMA_REGISTRY_USER and SCHEMA_REGISTRY_PASSWORD instead"
        )
    return url.rstrip("/")


def _message(error: urllib.error.HTTPError) -> str:
    with error:
        try:
            return error.read(2000).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return "(the answer broke off)"


def _config(subject: str) -> str:
    return f"/config/{urllib.parse.quote(subject, safe='')}"


def _subject(name: str) -> str:
    return f"/subjects/{urllib.parse.quote(name, safe='')}"


class RegistrySchemas:
    """Ids given by a registry. Every version kept in the repo is known by its local id too.

    `patiently` repeats a call that raises `RetriableError`, up to the limit that the settings give.
    """

    def __init__(
        self, client: RegistryClient, local: LocalSchemas, patiently: Callable[[Callable[[], int]], int]
    ) -> None:
        self._client = client
        self._local = local
        self._patiently = patiently

    def id_of(self, event_type: EventType[Any], subject: str) -> int:
        """Register the latest version for this subject, unless it is there; raises `SettingsError` when refused."""
        return self._patiently(lambda: self._register(event_type.latest.text, subject))

    def schema(self, schema_id: int) -> AvroSchema | None:
        """The registry's schema of this id, or the repo's; None when neither knows it."""
        known = self._local.schema(schema_id)
        if known is not None or schema_id > _LARGEST_ID:
            return known
        try:
            text = self._client.schema(schema_id)
            return AvroSchema.from_text(text) if text is not None else None
        except RegistryRefusal as error:
            raise RetriableError(f"the registry does not tell schema {schema_id}: {error}") from error
        except RetriableError as error:
            raise RetriableError(f"schema {schema_id} has to be looked up, and {error}") from error
        except SettingsError:
            return None  # of another kind, or with references: nothing that is read here

    def _register(self, schema: str, subject: str) -> int:
        try:
            known = self._client.find(subject, schema)
            if known is not None:
                return known
            self._client.require(subject, COMPATIBILITY)
            return self._client.register(subject, schema)
        except RegistryRefusal as error:
            if error.status == 409:
                raise SettingsError(
                    f"the schema of {subject} is not compatible ({COMPATIBILITY}) with the versions in the registry: a "
                    f"field may only come or go when it has a default, and no type may change. {error}"
                ) from error
            raise SettingsError(f"the registry refuses the schema of {subject}: {error}") from error


def schemas_for(
    settings: Settings, event_types: Sequence[EventType[Any]], timeout: float = _CALL_TIMEOUT
) -> SchemaSource:
    """The registry that the settings name, or the files; `timeout` in seconds bounds each of its calls."""
    local = LocalSchemas(*event_types)
    client = client_for(settings, timeout)
    if client is None:
        return local
    return RegistrySchemas(client, local, lambda call: _patiently(call, settings.broker_timeout))


def client_for(settings: Settings, timeout: float = _CALL_TIMEOUT) -> RegistryClient | None:
    """A client of the registry that the settings name; None when they name none."""
    if settings.schema_registry_url is None:
        return None
    password = settings.schema_registry_password
    return RegistryClient(
        settings.schema_registry_url,
        settings.schema_registry_user,
        password.get_secret_value() if password is not None else None,
        timeout,
    )


def _patiently(
    call: Callable[[], T],
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call until the registry answers; raises `UnavailableError` after `timeout` seconds."""
    log = structlog.get_logger()
    began, said_at = clock(), float("-inf")
    while True:
        try:
            answer = call()
            break
        except RetriableError as error:
            now = clock()
            if now >= began + timeout:
                raise UnavailableError(f"no answer within {timeout:g} s (BROKER_TIMEOUT): {error}") from error
            if now >= said_at + _SAY_EVERY:
                said_at = now
                log.warning("waiting for the registry", detail=str(error), giving_up_after_seconds=timeout)
            sleep(_POLL)
    if said_at >= began:
        log.info("the registry answers", after_seconds=round(clock() - began, 1))
    return answer
