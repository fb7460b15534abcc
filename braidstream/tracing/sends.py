"""The spans of a writer: one for each event, from when it is handed over until the broker has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from confluent_kafka import KafkaError, Message
from opentelemetry.trace import Span, SpanKind, StatusCode

from braidstream.streaming.ports import Headers
from braidstream.streaming.traceparent import HEADER
from braidstream.streaming.tracer import OnDelivery
from braidstream.tracing.spans import Spans, sending, traceparent_of


class SpanPerEvent:
    """A `SendTracer` that makes a span of every event, in the current context, if the SDK's sampler takes it."""

    hears_of_successes = True

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def sending(
        self, topic: str, keys: Sequence[bytes], on_delivery: OnDelivery
    ) -> Iterator[tuple[Headers, OnDelivery]]:
        """See `SendTracer`."""
        for key in keys:
            span = self._spans.tracer.start_span(
                f"send {topic}", kind=SpanKind.PRODUCER, attributes=sending(topic, None, key)
            )
            if span.get_span_context().is_valid:
                yield (
                    [(HEADER, traceparent_of(span))],
                    _ending(span, on_delivery) if span.is_recording() else on_delivery,
                )
            else:
                yield [], on_delivery


def _ending(span: Span, on_delivery: OnDelivery) -> OnDelivery:
    def heard(error: KafkaError | None, message: Message) -> None:
        if error is None:
            span.set_attribute("messaging.destination.partition.id", str(message.partition()))
            span.set_attribute("messaging.kafka.offset", message.offset() or 0)
        else:
            span.set_attribute("error.type", error.name())
            span.set_status(StatusCode.ERROR, error.str())
        span.end()
        on_delivery(error, message)

    return heard
