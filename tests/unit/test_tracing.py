"""Spans, as a collector receives them from the worker's own loop."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from structlog.testing import capture_logs

from braidstream.embedded import PARTITIONS, EmbeddedBroker, appear, environment_at, properties_at
from braidstream.errors import SettingsError
from braidstream.events import Events
from braidstream.settings import Settings
from braidstream.streaming.dead_letters import raw_headers
from braidstream.streaming.traceparent import HEADER, is_sampled, last_of
from braidstream.testing.broker import FakeBroker
from braidstream.testing.kit import PolicyKit, ScorerKit
from braidstream.testing.worker import WorkerKit
from braidstream.tracing import send_tracer, worker_tracer
from braidstream.tracing.batches import BatchTracer
from braidstream.tracing.spans import Spans, TellingExporter
from producer.sample import write_sample
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.collector import Collector, run_collector
from tests.command_line import environment
from tests.unit.events import ride
from tests.unit.test_traceparent import patient, trace_of

DEADLINE = 30
TRACE, START = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{START}-01".encode(), f"00-{TRACE}-{START}-00".encode()
ABORTABLE = KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True)


def predict(rides: Events[RideStarted]) -> list[float]:
    if "bad" in rides.keys:
        raise ValueError("no value")
    return [1.0] * len(rides)


class Traced:
    """Two models and a decision service on one broker, each traced as a service of its own."""

    def __init__(self, endpoint: str) -> None:
        self.broker = FakeBroker()
        self.models = [
            ScorerKit(RIDES, predict=predict, model=name, broker=self.broker, group=name)
            for name in ("duration", "tip")
        ]
        self.decision = PolicyKit(
            RIDES, patient, expected=("duration", "tip"), deadline=DEADLINE, broker=self.broker, group="decision"
        )
        self.spans: list[Spans] = []
        kits: list[WorkerKit[RideStarted]] = [*self.models, self.decision]
        for kit, name in zip(kits, ("duration", "tip", "decision"), strict=True):
            spans = Spans(name, endpoint)
            self.spans.append(spans)
            kit.tracer = BatchTracer(spans, name)
            kit.restart()

    def send(self, name: str, traceparent: bytes | None = SAMPLED) -> None:
        headers = [(HEADER, traceparent)] if traceparent is not None else []
        self.broker.send(
            "ride_started", key=name.encode(), value=self.decision.encode(ride(name)), headers=headers, partition=1
        )

    def run(self) -> None:
        for kit in (*self.models, self.decision):
            kit.run()

    def close(self) -> None:
        while self.spans:
            self.spans.pop().close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with run_collector() as opened:
        yield opened


@pytest.fixture
def rides(collector: Collector) -> Iterator[Traced]:
    traced = Traced(collector.endpoint)
    yield traced
    traced.close()


def test_the_trace_of_a_ride_is_a_tree_from_its_event_to_its_decision(rides: Traced, collector: Collector) -> None:
    rides.send("ride-1")
    rides.run()
    rides.close()
    predictions, [decision] = sorted(collector.named("send predictions")), collector.named("send decisions")
    assert [(span.service, span.kind, span.trace, span.parent) for span in predictions] == [
        ("duration", "PRODUCER", TRACE, START),
        ("tip", "PRODUCER", TRACE, START),
    ]
    assert (decision.service, decision.kind, decision.trace) == ("decision", "PRODUCER", TRACE)
    assert decision.parent == predictions[1].id, "it was made by the later prediction"
    assert predictions[0].attributes == {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "predictions",
        "messaging.destination.partition.id": "1",
        "messaging.kafka.message.key": "ride-1",
    }
    for topic in ("predictions", "decisions"):
        in_the_log = {trace_of(record) for record in rides.broker.records(topic)}
        assert in_the_log == {f"00-{TRACE}-{span.id}-01".encode() for span in collector.named(f"send {topic}")}
    assert not any(span.failed for span in collector.spans)


def test_a_batch_is_a_span_that_links_to_what_is_sampled(rides: Traced, collector: Collector) -> None:
    rides.send("ride-1")
    rides.send("ride-2", UNSAMPLED)
    rides.send("ride-3", None)
    rides.models[0].run()
    rides.close()
    [batch], [sent] = collector.named("process ride_started"), collector.named("send predictions")
    assert (batch.kind, batch.parent, batch.service) == ("CONSUMER", "", "duration")
    assert batch.trace != TRACE
    assert batch.attributes == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "ride_started",
        "messaging.consumer.group.name": "duration",
        "messaging.batch.message_count": 3,
    }
    at = {"messaging.destination.partition.id": "1", "messaging.kafka.offset": 0}
    assert batch.links == {f"{TRACE}-{START}": at}
    assert sent.links == {f"{batch.trace}-{batch.id}": {}}
    assert [trace_of(record) for record in rides.broker.records("predictions")][1:] == [UNSAMPLED, None]


def test_a_batch_of_two_topics_is_a_span_of_each(rides: Traced, collector: Collector) -> None:
    rides.send("ride-1")
    for model in rides.models:
        model.run()
    rides.decision.run()
    rides.close()
    of_decision = [span for span in collector.spans if span.service == "decision" and span.kind == "CONSUMER"]
    counts = {span.name: span.attributes["messaging.batch.message_count"] for span in of_decision}
    assert counts == {"process ride_started": 1, "process predictions": 2}


def test_there_are_no_more_links_than_the_limit(
    rides: Traced, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rides.spans[0], "max_links", 2)
    for number in range(3):
        rides.send(f"ride-{number}", f"00-{TRACE}-{number + 1:016x}-01".encode())
    rides.models[0].run()
    rides.close()
    [batch] = collector.named("process ride_started")
    assert sorted(batch.links) == [f"{TRACE}-{number:016x}" for number in (1, 2)]
    assert batch.attributes["messaging.batch.message_count"] == 3
    assert len(collector.named("send predictions")) == 3


def test_a_decision_at_its_deadline_is_under_the_event(rides: Traced, collector: Collector) -> None:
    rides.send("ride-1")
    rides.decision.run()
    rides.decision.advance(DEADLINE)
    rides.close()
    [decision] = collector.named("send decisions")
    assert (decision.trace, decision.parent, decision.links) == (TRACE, START, {})


def test_a_dead_letter_is_a_span_and_keeps_its_own_header(rides: Traced, collector: Collector) -> None:
    rides.send("bad")
    rides.models[0].run()
    rides.close()
    [dead] = collector.named("send dead_letters")
    assert (dead.trace, dead.parent) == (TRACE, START)
    [record] = rides.broker.records("dead_letters")
    assert last_of(raw_headers(record)) == SAMPLED


def test_a_span_keeps_the_beginning_of_a_large_key(rides: Traced, collector: Collector) -> None:
    rides.broker.send("ride_started", key=b"k" * 100_000, value=b"no ride", headers=[(HEADER, SAMPLED)])
    rides.models[0].run()
    rides.close()
    [dead] = collector.named("send dead_letters")
    assert dead.attributes["messaging.kafka.message.key"] == "k" * 1_000


def test_a_batch_that_is_undone_has_an_error_and_sent_nothing(rides: Traced, collector: Collector) -> None:
    rides.broker.fail_next("commit_transaction", ABORTABLE)
    rides.send("ride-1")
    rides.models[0].run()
    rides.close()
    undone, done = collector.named("process ride_started")
    assert (undone.failed, undone.attributes["error.type"]) == (True, "RetriableError")
    assert not done.failed
    [sent] = collector.named("send predictions")
    assert sent.links.keys() == {f"{done.trace}-{done.id}"}
    assert [trace_of(record) for record in rides.broker.records("predictions")] == [f"00-{TRACE}-{sent.id}-01".encode()]


def test_what_may_have_been_sent_is_a_span_with_an_error(rides: Traced, collector: Collector) -> None:
    rides.broker.fail_next("commit_transaction", KafkaError(KafkaError._TIMED_OUT), done=True)
    rides.send("ride-1")
    rides.models[0].run()
    rides.close()
    [sent] = collector.named("send predictions")
    assert (sent.failed, sent.attributes["error.type"]) == (True, "OutcomeUnknown")
    assert [trace_of(record) for record in rides.broker.records("predictions")] == [f"00-{TRACE}-{sent.id}-01".encode()]


def test_what_is_not_sampled_costs_no_span(rides: Traced, collector: Collector) -> None:
    rides.send("ride-1", UNSAMPLED)
    rides.send("ride-2", None)
    rides.run()
    rides.close()
    assert collector.spans == []
    assert [trace_of(record) for record in rides.broker.records("decisions")] == [UNSAMPLED, None]


@pytest.fixture
def trips(tmp_path: Path) -> Path:
    path = tmp_path / "trips_2023-01.parquet"
    write_sample(path, 40, seed=1, month="2023-01")
    return path


def test_producer_and_worker_send_spans_to_where_the_environment_says(collector: Collector, trips: Path) -> None:
    """In processes of their own, which send their last spans when they end."""
    with EmbeddedBroker() as broker:
        appear(Producer({"bootstrap.servers": broker.bootstrap_servers}), [topic.name for topic in RIDES.topics])
        settings = environment(
            {
                **environment_at(broker.bootstrap_servers),
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
                "DECISION_DEADLINE": "0.1",
                "LOG_FORMAT": "json",
            }
        )
        command = [sys.executable, "-m", "decision_service"]
        with subprocess.Popen(command, env=settings, stderr=subprocess.PIPE, text=True) as worker:
            try:
                sampler = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
                producer = [sys.executable, "-m", "producer", str(trips)]
                subprocess.run(producer, env={**settings, **sampler}, check=True, timeout=60, capture_output=True)
                decisions = consumed(broker, "decisions", 40)
                worker.terminate()
                _, log = worker.communicate(timeout=30)
            finally:
                worker.kill()
        events = consumed(broker, "ride_started", 40)
    assert (worker.returncode, "Traceback" in log) == (0, False), log
    sent = {(span.trace, span.id): span for span in collector.named("send ride_started")}
    headers = {ids_of(record): record for record in events}
    assert sent.keys() == {ids for ids, record in headers.items() if is_sampled(trace_of(record) or b"")}
    assert 0 < len(sent) < len(headers) == 40
    for ids, span in sent.items():
        assert (span.service, span.kind, span.parent) == ("writer", "PRODUCER", "")
        assert span.attributes["messaging.kafka.message.key"] == (headers[ids].key() or b"").decode()
        assert span.attributes["messaging.destination.partition.id"] == str(headers[ids].partition())
        assert span.attributes["messaging.kafka.offset"] == headers[ids].offset()
    made = {(span.trace, span.parent): span.service for span in collector.named("send decisions")}
    assert made == dict.fromkeys(sent, "decision")
    assert {ids_of(record)[0] for record in decisions} == {trace for trace, _ in headers}


def ids_of(record: Message) -> tuple[str, str]:
    """The ids of the trace and the span in a record's header."""
    _, trace, span, _ = (trace_of(record) or b"").decode().split("-")
    return trace, span


def consumed(broker: EmbeddedBroker, topic: str, count: int) -> list[Message]:
    """So many records of a topic."""
    consumer = Consumer({**properties_at(broker.bootstrap_servers), "group.id": "test"})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    found: list[Message] = consumer.consume(count, 60)
    consumer.close()
    return found


def told(exporter: TellingExporter, collector: Collector, *statuses: HTTPStatus) -> list[tuple[str, str, str | None]]:
    """What is logged when a collector answers so."""
    with capture_logs() as logs:
        for status in statuses:
            collector.status = status
            exporter.export([])
    return [(line["log_level"], line["event"], line.get("reason")) for line in logs]


def test_a_collector_that_refuses_spans_is_told_once(collector: Collector) -> None:
    exporter = TellingExporter(OTLPSpanExporter(f"{collector.endpoint}/v1/traces"))
    missing, ok = HTTPStatus.NOT_FOUND, HTTPStatus.OK
    assert told(exporter, collector, ok, missing, missing, ok, ok) == [
        (
            "warning",
            "spans do not reach the collector and are dropped; the work goes on",
            "Failed to export spans batch code: 404, reason: Not Found",
        ),
        ("info", "spans reach the collector again", None),
    ]


def test_a_collector_that_is_gone_is_told_in_a_few_words() -> None:
    with run_collector() as gone:
        exporter = TellingExporter(OTLPSpanExporter(f"{gone.endpoint}/v1/traces", timeout=2))
    [(_, _, reason)] = told(exporter, gone, HTTPStatus.OK)
    assert reason == "Connection refused"


def test_the_end_of_a_process_waits_for_a_collector_that_hangs_only_for_a_moment(
    rides: Traced, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("braidstream.tracing.spans.LAST_SECONDS", 0.2)
    with collector.hanging(), capture_logs() as logs:
        rides.send("ride-1")
        rides.models[0].run()
        began = time.monotonic()
        rides.spans[0].close()
        took = time.monotonic() - began
    assert 0.2 <= took < 10
    assert (logs[-1]["event"], logs[-1]["reason"]) == ("the last spans are lost", "the collector is slow")


def test_the_end_of_a_process_waits_no_longer_after_a_further_signal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        code = (
            "from braidstream.tracing.spans import open_spans; "
            f"open_spans('a', '{endpoint}').tracer.start_span('b').end()"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                with silent.accept()[0]:
                    process.send_signal(signal.SIGINT)
                    log = b"".join(process.communicate(timeout=30))
            finally:
                process.kill()
    assert b"the last spans are lost" in log
    assert b"Traceback" not in log


def test_spans_go_where_the_settings_say_and_a_worker_leaves_the_sampling_to_others(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_exit: list[Callable[[], object]] = []
    monkeypatch.setattr("atexit.register", at_exit.append)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    settings = Settings(otel_exporter_otlp_endpoint=f"{collector.endpoint}/")
    broker = FakeBroker()
    kit = ScorerKit(RIDES, predict=predict, model="duration", broker=broker, group="duration")
    writer = send_tracer(settings, "writer")
    assert writer is not None
    for headers, heard in writer.sending("ride_started", [b"ride-1"], lambda *_: None):
        broker.send("ride_started", key=b"ride-1", value=kit.encode(ride("ride-1")), headers=headers)
        heard(None, broker.records("ride_started")[0])
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    kit.tracer = worker_tracer(settings, "duration")
    kit.restart()
    kit.run()
    for close in at_exit:
        close()
    names = {span.name for span in collector.spans}
    assert names == {"send ride_started", "process ride_started", "send predictions"}


def test_what_opentelemetry_refuses_is_a_setting_to_be_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "many")
    with pytest.raises(SettingsError, match="OTEL_SPAN_LINK_COUNT_LIMIT must be a non-negative integer"):
        Spans("duration", "http://localhost:4318")


def test_a_collector_is_named_by_a_whole_address() -> None:
    with pytest.raises(SettingsError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT has to begin with http://"):
        send_tracer(Settings(otel_exporter_otlp_endpoint="localhost:4318"), "writer")


@pytest.mark.parametrize(
    ("protocol", "says"),
    [
        ("grpc", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc cannot be used"),
        ("http/protobuf", r"pip install 'braidstream\[otel\]'"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(
    monkeypatch: pytest.MonkeyPatch, protocol: str, says: str
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    settings = Settings(otel_exporter_otlp_endpoint="http://localhost:4318", otel_exporter_otlp_protocol=protocol)
    for begin in (lambda: worker_tracer(settings, "duration"), lambda: send_tracer(settings, "writer")):
        with pytest.raises(SettingsError, match=says):
            begin()


@pytest.mark.parametrize("endpoint", [None, ""])
def test_without_an_endpoint_nothing_is_traced(endpoint: str | None) -> None:
    settings = Settings(otel_exporter_otlp_endpoint=endpoint, otel_exporter_otlp_protocol="grpc")
    assert worker_tracer(settings, "duration") is None
    assert send_tracer(settings, "writer") is None


def test_opentelemetry_is_imported_only_where_spans_are_sent() -> None:
    command = (
        "import sys, braidstream.run, producer.__main__; print([name for name in sys.modules if 'telemetry' in name])"
    )
    found = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
