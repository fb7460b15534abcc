"""A collector of spans in this process: what a worker or writer sends by OTLP, as it came."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2


class Received(NamedTuple):
    """A span; ids in hexadecimal, `parent` empty for the first of a trace, `links` with their attributes."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    failed: bool
    attributes: dict[str, Any]
    links: dict[str, dict[str, Any]]


class Collector:
    """Answers at `endpoint` with `status`, and keeps what it took."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.status = HTTPStatus.OK
        self._open = threading.Event()
        self._open.set()
        self.spans: list[Received] = []

    def take(self, body: bytes) -> None:
        """Take a request; raises `google.protobuf.message.DecodeError`."""
        self._open.wait()
        if self.status is not HTTPStatus.OK:
            return
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _attributes(of_resource.resource.attributes)["service.name"]
            self.spans += [_received(service, span) for scope in of_resource.scope_spans for span in scope.spans]

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Meanwhile nothing is answered."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    def named(self, name: str) -> list[Received]:
        """The spans of this name."""
        return [span for span in self.spans if span.name == name]


def _received(service: str, span: trace_pb2.Span) -> Received:
    return Received(
        service,
        span.name,
        trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        _attributes(span.attributes),
        {f"{link.trace_id.hex()}-{link.span_id.hex()}": _attributes(link.attributes) for link in span.links},
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind is not None else None


@contextmanager
def run_collector() -> Iterator[Collector]:
    """A collector on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
