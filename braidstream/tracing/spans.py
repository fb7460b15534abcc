"""Making spans, and sending them to a collector without ever holding up or failing whoever makes them."""

from __future__ import annotations

import atexit
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags, set_span_in_context

from braidstream.errors import SettingsError

QUEUE = 20_000
"""Spans that wait to be sent, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise: more than a batch may give at once. What
does not fit is dropped."""

KEY = 1_000
"""Bytes of a record's key that a span keeps: a key may be as large as a record, and many spans wait."""

LAST_SECONDS = 5.0
"""How long the end of a process may wait for its last spans to be sent."""


class Spans:
    """Makes spans of one service, and sends them from a thread of its own until `close`.

    They go to the collector at `endpoint`; a `sampler` takes the place of the environment's. Raises `SettingsError`
    when OpenTelemetry refuses what else that says.
    """

    def __init__(self, service: str, endpoint: str, sampler: Sampler | None = None) -> None:
        try:
            self._open(service, endpoint, sampler)
        except ValueError as error:
            raise SettingsError(f"OpenTelemetry refuses its settings: {error}") from error

    def _open(self, service: str, endpoint: str, sampler: Sampler | None) -> None:
        limits = SpanLimits()
        self.max_links = sys.maxsize if limits.max_links is None else limits.max_links
        self._provider = TracerProvider(sampler, _resource(service), span_limits=limits, shutdown_on_exit=False)
        address = os.environ.get(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) or f"{endpoint.removesuffix('/')}/v1/traces"
        exporter = TellingExporter(OTLPSpanExporter(address))
        queue = None if OTEL_BSP_MAX_QUEUE_SIZE in os.environ else QUEUE
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=queue))
        self.tracer = self._provider.get_tracer("braidstream")
        self._closing, self._closed = threading.Event(), threading.Event()
        # At the end of a process no thread can be started any more.
        threading.Thread(target=self._close, name="last spans", daemon=True).start()

    def close(self) -> None:
        """Send what is left, for no longer than `LAST_SECONDS`, or until a further signal."""
        self._closing.set()
        with suppress(KeyboardInterrupt, SystemExit):
            self._closed.wait(LAST_SECONDS)
        if not self._closed.is_set():
            structlog.get_logger().warning("the last spans are lost", reason=_sdk_log.why or "the collector is slow")

    def _close(self) -> None:
        self._closing.wait()
        self._provider.shutdown()
        self._closed.set()


def open_spans(service: str, endpoint: str, sampler: Sampler | None = None) -> Spans:
    """Spans until the process ends."""
    spans = Spans(service, endpoint, sampler)
    atexit.register(spans.close)
    return spans


class TellingExporter(SpanExporter):
    """An exporter that says when spans do not arrive, and when they do again: once each."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False
        self._log = structlog.get_logger()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send these."""
        with _sdk_log.exporting():
            result = self._exporter.export(spans)
        if (failed := result is not SpanExportResult.SUCCESS) != self._failing:
            self._failing = failed
            if failed:
                self._log.warning(
                    "spans do not reach the collector and are dropped; the work goes on", reason=_sdk_log.why
                )
            else:
                self._log.info("spans reach the collector again")
        return result

    def shutdown(self) -> None:
        """Send nothing more."""
        self._exporter.shutdown()


def context_of(traceparent: bytes) -> SpanContext:
    """What a valid header names."""
    return SpanContext(
        int(traceparent[3:35], 16),
        int(traceparent[36:52], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(traceparent[53:], 16)),
    )


def under(parent: SpanContext) -> Context:
    """The context of a span that is a child of this one."""
    return set_span_in_context(NonRecordingSpan(parent), Context())


def traceparent_of(span: Span) -> bytes:
    """The header by which others go on from a span."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}".encode()


def sending(topic: str, partition: int | None, key: bytes | None) -> dict[str, str]:
    """The attributes of the span of a record; without a partition (None, or below 0) it is the client that chooses."""
    attributes = {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": topic,
    }
    if partition is not None and partition >= 0:
        attributes["messaging.destination.partition.id"] = str(partition)
    if key is not None:
        attributes["messaging.kafka.message.key"] = key[:KEY].decode(errors="replace")
    return attributes


def _resource(service: str) -> Resource:
    """What the environment says of this service; its name is the given one, if that says none."""
    found = Resource.create()
    named = not str(found.attributes[SERVICE_NAME]).startswith("unknown_service")
    return found if named else found.merge(Resource({SERVICE_NAME: service}))


class _SdkLog(logging.Handler):
    """Takes what OpenTelemetry logs: each kind of line once, in one line; `why` the last export failed is kept."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()
        self._exporting = False
        self.why = ""

    @contextmanager
    def exporting(self) -> Iterator[None]:
        """Meanwhile lines say why this export fails."""
        self.why, self._exporting = "", True
        try:
            yield
        finally:
            self._exporting = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep or pass on a line."""
        line = record.getMessage()
        if self._exporting and record.name.startswith("opentelemetry.exporter."):
            cause = _CAUSE.search(line)
            self.why = self.why or (cause[0] if cause is not None else line)
        elif record.msg not in self._told:
            self._told.add(record.msg)
            error = {"error": repr(record.exc_info[1])} if record.exc_info else {}
            structlog.get_logger().warning("opentelemetry", line=line, **error)


_CAUSE = re.compile(r"(?<=\] )[A-Z][^\"')\]]+(?=[\"')])")
"""What the operating system said, within what urllib3 and requests make of it."""

_sdk_log = _SdkLog()


_sdk_logger = logging.getLogger("opentelemetry")
_sdk_logger.handlers, _sdk_logger.propagate = [_sdk_log], False
