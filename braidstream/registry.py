"""Schema ids: from a schema registry (Confluent's REST API), or from the repo's files without one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import httpx
import structlog
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from braidstream.avro import AvroSchema, EventType, LocalSchemas, SchemaSource
from braidstream.errors import RetriableError, SettingsError, UnavailableError
from braidstream.settings import Settings

COMPATIBILITY = "FULL_TRANSITIVE"
"""Parts are deployed and rolled back independently and old records are read: every version reads every other."""

_POLL = 1.0
T = TypeVar("T")


class RegistrySchemas:
    """Ids given by a registry. Every version kept in the repo is known by its local id too."""

    def __init__(
        self, client: SchemaRegistryClient, local: LocalSchemas, retry: Callable[[Callable[[], T]], T]
    ) -> None:
        self._client = client
        self._local = local
        self._retry: Callable[[Callable[[], Any]], Any] = retry

    def id_of(self, event_type: EventType[Any], subject: str) -> int:
        """Register the latest version for this subject, unless it is there; raises `SettingsError` when incompatible."""
        schema = Schema(event_type.latest.text, "AVRO")
        return int(self._retry(lambda: self._register(schema, subject)))

    def schema(self, schema_id: int) -> AvroSchema | None:
        """The registry's schema of this id, or the repo's; None when neither knows it."""
        if (known := self._local.schema(schema_id)) is not None:
            return known
        try:
            return AvroSchema.from_text(str(self._client.get_schema(schema_id).schema_str))
        except SchemaRegistryError as error:
            if error.http_status_code in (404, 422):
                return None
            raise RetriableError(f"the registry cannot tell schema {schema_id}: {error}") from error
        except httpx.HTTPError as error:
            raise RetriableError(f"the registry does not answer: {error}") from error

    def _register(self, schema: Schema, subject: str) -> int:
        try:
            if subject in self._client.get_subjects():
                self._require_compatible(schema, subject)
            self._client.set_compatibility(subject_name=subject, level=COMPATIBILITY)
            return self._client.register_schema(subject, schema)
        except SchemaRegistryError as error:
            if error.http_status_code == 409:
                raise SettingsError(_incompatible(subject, str(error))) from error
            raise

    def _require_compatible(self, schema: Schema, subject: str) -> None:
        for version in self._client.get_versions(subject):
            if not self._client.test_compatibility(subject, schema, version):
                raise SettingsError(_incompatible(subject, f"version {version} in the registry"))


def _incompatible(subject: str, what: str) -> str:
    return (
        f"the schema of {subject} is not compatible ({COMPATIBILITY}) with {what}: "
        "a field may only be added or removed when it has a default, and no type may change"
    )


def schemas_for(settings: Settings, event_types: Sequence[EventType[Any]]) -> SchemaSource:
    """The registry that the settings name, or the files."""
    local = LocalSchemas(*event_types)
    if settings.schema_registry_url is None:
        return local
    config = {"url": settings.schema_registry_url, "max.retries": 2, "timeout": 10}
    if settings.schema_registry_user is not None and settings.schema_registry_password is not None:
        password = settings.schema_registry_password.get_secret_value()
        config["basic.auth.user.info"] = f"{settings.schema_registry_user}:{password}"
    try:
        client = SchemaRegistryClient(config)
    except ValueError as error:
        raise SettingsError(f"SCHEMA_REGISTRY_URL: {error}") from error
    return RegistrySchemas(client, local, lambda call: _patiently(call, settings))


def _patiently(
    call: Callable[[], T],
    settings: Settings,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call until the registry answers; raises `UnavailableError` after `BROKER_TIMEOUT` seconds."""
    deadline = clock() + settings.broker_timeout
    while True:
        try:
            return call()
        except (SchemaRegistryError, httpx.HTTPError) as error:
            refused = isinstance(error, SchemaRegistryError) and 400 <= error.http_status_code < 500
            if refused:
                raise SettingsError(f"the registry at {settings.schema_registry_url} refuses: {error}") from error
            if clock() >= deadline:
                raise UnavailableError(
                    f"no registry answers at {settings.schema_registry_url} within {settings.broker_timeout:g} s "
                    f"(BROKER_TIMEOUT): {error}"
                ) from error
            structlog.get_logger().warning("the registry does not answer yet", detail=str(error))
            sleep(_POLL)
