"""Every setting, read from the environment once, by whoever composes a program.

Any property of librdkafka passes through: `KAFKA_SASL_USERNAME` is `sasl.username`. Those that this package has to
set itself are refused by name, as are those that librdkafka does not know.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableError

from braidstream.errors import SettingsError


def _split(value: object) -> object:
    return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


ModelNames = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Names separated by commas in the environment."""

Guarantee = Literal["exactly_once", "at_least_once"]

Seconds = Annotated[float, Field(gt=0, le=3.2e9)]
"""At most a century: a time further away does not fit what is kept of it."""


def _utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it is not UTF-8") from None
    return text


_Text = Annotated[str, AfterValidator(_utf8)]
"""What is handed to librdkafka, which ends the process on other bytes."""

_OWN = {
    "auto.offset.reset": "a group without offsets starts at the beginning, and a lost offset stops the worker",
    "client.id": "it is the group's name",
    "delivery.report.only.error": "it is always on",
    "enable.auto.commit": "offsets are committed with the results",
    "enable.auto.offset.store": "offsets are committed with the results",
    "enable.idempotence": "it is always on",
    "enable.partition.eof": "the loop does not use it",
    "group.id": "it is the group's name, made of TOPIC_PREFIX and the worker's name",
    "isolation.level": "it is always read_committed",
    "partitioner": "keys are always partitioned by murmur2_random, as Java's clients do",
    "transactional.id": "shared by replicas it would make them fence each other; it is <group>-<hostname>-<pid>",
}

S = TypeVar("S", bound="Settings")


def _kafka_properties(environ: Mapping[str, str]) -> dict[str, str]:
    prefix = "KAFKA_"
    return {
        name.removeprefix(prefix).lower().replace("_", "."): value
        for name, value in environ.items()
        if name.startswith(prefix) and name != prefix
    }


class Settings(BaseSettings):
    """What every program needs to reach Kafka and the registry, and to log."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kafka: Mapping[str, _Text] = Field(
        default_factory=lambda: MappingProxyType({}),
        repr=False,
        description="`KAFKA_<PROPERTY>`: any property of librdkafka, for example `KAFKA_BOOTSTRAP_SERVERS`.",
    )
    schema_registry_url: str | None = Field(
        default=None,
        description="Address of a schema registry; without one, schema ids come from the files in `schemas/`.",
    )
    schema_registry_user: str | None = Field(default=None, description="User name for the registry.")
    schema_registry_password: SecretStr | None = Field(default=None, description="Password for the registry.")
    topic_prefix: _Text = Field(default="", description="Put before the name of every topic and group.")
    partitions: int = Field(default=6, ge=1, description="Partitions of every topic; checked at start.")
    replication_factor: int | None = Field(
        default=None, ge=1, description="Replicas of topics that are created; without it, the broker's default."
    )
    broker_timeout: float = Field(
        default=60.0,
        gt=0,
        le=2e6,  # librdkafka counts milliseconds in 32 bits
        description="Seconds to go on without an answer of the broker or the registry before giving up; commands for "
        "people wait 10 unless it is set.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="`auto` is `console` on a terminal and `json` elsewhere."
    )

    otel_exporter_otlp_endpoint: str | None = Field(
        default=None,
        description="OpenTelemetry collector that workers and producers send spans to, as in `http://localhost:4318`; "
        "needs `braidstream[otel]`. No spans when unset.",
    )
    otel_exporter_otlp_protocol: str | None = Field(
        default=None, description="Spans are sent over HTTP, as protobuf; another protocol is refused."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is not given is the default: the environment is read by `load` alone."""
        return (init_settings,)

    @classmethod
    def load(cls: type[S], environ: Mapping[str, str] = os.environ) -> S:
        """Read the environment; raises `SettingsError` naming each wrong setting."""
        source = EnvSettingsSource(cls)
        source.env_vars = {name.lower(): value for name, value in environ.items()}
        try:
            return cls(**{**source(), "kafka": MappingProxyType(_kafka_properties(environ))})
        except UnreadableError as error:
            raise SettingsError(f"wrong settings: {error}: what is no plain value is written as JSON") from None
        except ValidationError as error:
            raise SettingsError(f"wrong settings: {_named(error)}") from None

    @field_validator("kafka")
    @classmethod
    def _refuse_own_properties(cls, kafka: Mapping[str, str]) -> Mapping[str, str]:
        for name, why in _OWN.items():
            if name in kafka:
                raise ValueError(f"KAFKA_{name.upper().replace('.', '_')} cannot be set: {why}")
        return kafka

    @model_validator(mode="after")
    def _registry_credentials_belong_together(self) -> Self:
        if (self.schema_registry_user is None) != (self.schema_registry_password is None):
            raise ValueError("SCHEMA_REGISTRY_USER and SCHEMA_REGISTRY_PASSWORD are set together or not at all")
        if self.schema_registry_user is not None and self.schema_registry_url is None:
            raise ValueError("SCHEMA_REGISTRY_USER does nothing without SCHEMA_REGISTRY_URL")
        return self

    @property
    def bootstrap_servers(self) -> str:
        """The brokers' addresses; raises `SettingsError` when there are none."""
        servers = self.kafka.get("bootstrap.servers")
        if not servers:
            raise SettingsError(
                "KAFKA_BOOTSTRAP_SERVERS is not set: give the broker's address, as in localhost:9092, or start a shell "
                "with a broker of its own by `braidstream broker`"
            )
        return servers

    def named(self, name: str) -> str:
        """The topic or group of this name, with the prefix."""
        return f"{self.topic_prefix}{name}"


class WorkerSettings(Settings):
    """What a worker needs besides."""

    processing_guarantee: Guarantee = Field(
        default="exactly_once", description="`exactly_once` (transactions) or `at_least_once` (brokers without them)."
    )
    batch_size: int = Field(default=5000, ge=1, le=100_000, description="Most records taken at once.")
    dead_letter_run: int = Field(
        default=1000,
        ge=1,
        description="This many dead letters in a row stop the worker: a bad deployment, not bad records.",
    )
    dead_letter_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="More than this share of dead letters stops the worker: of the last 10,000 records, or of all so "
        "far, from `DEAD_LETTER_RUN` / `DEAD_LETTER_SHARE` on.",
    )
    http_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port of `/livez`, `/readyz` and `/metrics`; 0 takes a free one and logs it. No HTTP when unset.",
    )
    http_host: str = Field(
        default="127.0.0.1", min_length=1, description="Address that `HTTP_PORT` is listened to at; `0.0.0.0` for all."
    )

    @model_validator(mode="after")
    def _guarantee_can_be_kept(self) -> Self:
        if self.processing_guarantee == "at_least_once" and "transaction.timeout.ms" in self.kafka:
            raise ValueError("KAFKA_TRANSACTION_TIMEOUT_MS does nothing with PROCESSING_GUARANTEE=at_least_once")
        return self

    @model_validator(mode="after")
    def _http_is_as_it_is_set(self) -> Self:
        if self.http_port is None and "http_host" in self.model_fields_set:
            raise ValueError("HTTP_HOST does nothing without HTTP_PORT")
        if self.http_port == 0 and self.log_level not in ("debug", "info"):
            raise ValueError(f"HTTP_PORT=0 logs which port was free, and LOG_LEVEL={self.log_level} leaves that out")
        return self

    @property
    def max_poll_interval(self) -> float:
        """Seconds for which a worker may leave its consumer alone before the group gives its partitions to others.

        Raises `SettingsError`.
        """
        value = self.kafka.get("max.poll.interval.ms", "300000")
        try:
            return int(value) / 1000
        except ValueError:
            raise SettingsError(f"KAFKA_MAX_POLL_INTERVAL_MS={value} is no number of milliseconds") from None


class ScoringSettings(WorkerSettings):
    """What a model's worker needs besides."""

    model_uri: str | None = Field(
        default=None, description="The model to serve: a folder. Default: `models/<name of the consumer>`."
    )


class HandlerSettings(WorkerSettings):
    """What a consumer with a handler of its own needs besides; both are for handlers that handle a subject once."""

    remember: Seconds = Field(
        default=86_400.0,
        description="Seconds that a subject is known to be handled, for its repeats.",
    )
    max_remembered: int = Field(
        default=2_000_000,
        ge=1,
        description="Handled subjects of a worker, of 200 bytes each, at which it forgets the oldest before `REMEMBER` "
        "is over.",
    )


class DecisionSettings(WorkerSettings):
    """What a decision service needs besides."""

    expected_models: ModelNames = Field(description="Models that a decision waits for, separated by commas.")
    decision_deadline: Seconds = Field(
        default=30.0,
        description="Seconds from the first sight of the subject's event to a decision without the missing.",
    )
    deadline_grace: Seconds = Field(
        default=10.0,
        description="Seconds after a deadline from which a decision that still waits to be made is logged.",
    )
    remember: Seconds = Field(
        default=3600.0,
        description="Seconds that a closed subject is known, for its repeats and late predictions.",
    )
    max_open: int = Field(
        default=1_000_000,
        ge=1,
        description="Open decisions of a worker at which it pauses new subjects, and subjects of which only "
        "predictions have come at which it pauses predictions.",
    )
    max_remembered: int = Field(
        default=2_000_000,
        ge=1,
        description="Closed subjects of a worker, of half a kilobyte each, at which it forgets the oldest before "
        "`REMEMBER` is over.",
    )

    @field_validator("expected_models")
    @classmethod
    def _distinct(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        if not models or len(set(models)) != len(models):
            raise ValueError("name at least one model, each once")
        return models


def _named(error: ValidationError) -> str:
    """The error with the environment's names; never the values: they may be secret."""
    parts = []
    for item in error.errors(include_url=False, include_input=False):
        name = "_".join(map(str, item["loc"])).upper().replace(".", "_")
        message = item["msg"].removeprefix("Value error, ")
        parts.append(message if not name or name == "KAFKA" else f"{name}: {message}")
    return "; ".join(parts)
