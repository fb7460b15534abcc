"""The spans of a worker: one for each topic of a batch, and one for each record that it sends."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

from confluent_kafka import Message
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

from braidstream.errors import RetriableError
from braidstream.streaming.processor import Work
from braidstream.streaming.publisher import OutcomeUnknown, OutRecord
from braidstream.streaming.traceparent import HEADER, is_sampled, last_of
from braidstream.tracing.spans import Spans, context_of, sending, traceparent_of, under


class BatchTracer:
    """A `Tracer` that makes spans of what is sampled, as its `traceparent` says; of what is not, none.

    `process <topic>` begins a trace of its own. It lasts from when a batch was taken until its results are in the log,
    and links to its first sampled records, as many as the SDK's limit allows. `send <topic>` is a child of the record
    that was the cause, and lasts from publishing until then.
    """

    def __init__(self, spans: Spans, group: str) -> None:
        self._spans = spans
        self._group = group
        self._batches: list[Span] = []
        self._sends: list[Span] = []

    def publishing(self, work: Work, seconds: float) -> None:
        """See `Tracer`."""
        taken_at = time.time_ns() - round(seconds * 1e9)
        self._batches = [
            self._batch(topic, links, work.consumed.get(topic, 0), taken_at) for topic, links in self._links(work)
        ]
        batches = [Link(span.get_span_context()) for span in self._batches]
        for at, record in enumerate(work.records):
            if headers := record[4]:
                if headers[-1][0] == HEADER:
                    work.records[at] = self._sent(record, headers[-1][1], batches)
                elif work.dead_letters:
                    # A dead letter's headers stay as they came.
                    self._sent(record, last_of(headers), batches)

    def committed(self) -> None:
        """See `Tracer`."""
        for span in (*self._sends, *self._batches):
            span.end()
        self._forget()

    def went_back(self, error: RetriableError) -> None:
        """See `Tracer`: there are no spans of what was not sent, but of what may have been."""
        for span in (*self._batches, *(self._sends if isinstance(error, OutcomeUnknown) else ())):
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(StatusCode.ERROR, str(error))
            span.end()
        self._forget()

    def _forget(self) -> None:
        self._batches, self._sends = [], []

    def _links(self, work: Work) -> Sequence[tuple[str, Sequence[Link]]]:
        """Links to the sampled records of each topic."""
        found: defaultdict[str, list[Link]] = defaultdict(list)
        records = work.taken.records
        for index, traceparent in work.taken.traceparents.items():
            if is_sampled(traceparent):
                links = found[str(records[index].topic())]
                if len(links) < self._spans.max_links:
                    links.append(_link(records[index], traceparent))
        return list(found.items())

    def _batch(self, topic: str, links: Sequence[Link], records: int, taken_at: int) -> Span:
        attributes: dict[str, AttributeValue] = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": topic,
            "messaging.consumer.group.name": self._group,
            "messaging.batch.message_count": records,
        }
        return self._spans.tracer.start_span(
            f"process {topic}",
            context=Context(),
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=links,
            start_time=taken_at,
        )

    def _sent(self, record: OutRecord, cause: bytes | None, batches: Sequence[Link]) -> OutRecord:
        """Begin the span of a record; the record with the span's own context."""
        if cause is None or not is_sampled(cause):
            return record
        topic, partition, key, value, headers = record
        span = self._spans.tracer.start_span(
            f"send {topic}",
            context=under(context_of(cause)),
            kind=SpanKind.PRODUCER,
            attributes=sending(topic, partition, key),
            links=batches,
        )
        self._sends.append(span)
        return topic, partition, key, value, [*headers[:-1], (HEADER, traceparent_of(span))]


def _link(record: Message, traceparent: bytes) -> Link:
    at: dict[str, AttributeValue] = {
        "messaging.destination.partition.id": str(record.partition()),
        "messaging.kafka.offset": record.offset() or 0,
    }
    return Link(context_of(traceparent), at)
