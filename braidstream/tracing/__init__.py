"""Spans over OTLP, of workers and writers. Nothing else knows OpenTelemetry, which need not be installed."""

from __future__ import annotations

from braidstream.errors import SettingsError
from braidstream.settings import Settings
from braidstream.streaming.tracer import SendTracer, Tracer

PROTOCOL = "http/protobuf"


def check(settings: Settings) -> None:
    """Raise `SettingsError` when spans are to be sent and cannot be."""
    if not settings.otel_exporter_otlp_endpoint:
        return
    if settings.otel_exporter_otlp_protocol not in (None, "", PROTOCOL):
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={settings.otel_exporter_otlp_protocol} cannot be used: spans are sent by "
            f"{PROTOCOL}; unset it, and let OTEL_EXPORTER_OTLP_ENDPOINT name the collector's port for that, often 4318"
        )
    if not settings.otel_exporter_otlp_endpoint.startswith(("http://", "https://")):
        raise SettingsError("OTEL_EXPORTER_OTLP_ENDPOINT has to begin with http:// or https://")
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, and OpenTelemetry is not installed: pip install 'braidstream[otel]', "
            "or unset it"
        ) from error


def worker_tracer(settings: Settings, group: str) -> Tracer | None:
    """The tracer of a worker of this group; None when no spans are to be sent. Raises `SettingsError` as `check`."""
    check(settings)
    if not (endpoint := settings.otel_exporter_otlp_endpoint):
        return None
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    from braidstream.tracing.batches import BatchTracer
    from braidstream.tracing.spans import open_spans

    # What is sampled has been chosen where its trace began.
    return BatchTracer(open_spans(group, endpoint, ALWAYS_ON), group)


def send_tracer(settings: Settings, name: str) -> SendTracer | None:
    """The same of a writer, whose spans are of a service of this name."""
    check(settings)
    if not (endpoint := settings.otel_exporter_otlp_endpoint):
        return None
    from braidstream.tracing.sends import SpanPerEvent
    from braidstream.tracing.spans import open_spans

    return SpanPerEvent(open_spans(name, endpoint))
