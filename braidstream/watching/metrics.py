"""A worker's metrics in Prometheus' terms: base units, counters that end in `_total`.

What happens is counted batch by batch, when it is in the log. What is the case is kept as the last view of the loop,
and read when it is scraped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from confluent_kafka import KafkaException
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from braidstream.errors import RetriableError
from braidstream.streaming.observer import View
from braidstream.streaming.ports import Partition
from braidstream.streaming.processor import Work

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LATENCIES = (*_SECONDS[1:], 30, 60, 300, 900, 3600)
_SIZES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)


class Metrics:
    """Counts what it is told, and renders all of it.

    `reasons` are the checks of readiness, `stalled` the partitions that stand still. `now` is in milliseconds since
    1970, UTC. Everything is kept in a registry of its own.
    """

    def __init__(
        self,
        reasons: Callable[[], Mapping[str, str | None]],
        stalled: Callable[[], Collection[Partition]],
        now: Callable[[], int],
    ) -> None:
        self.registry = registry = CollectorRegistry()
        self._now = now
        ProcessCollector(registry=registry)
        self._worker = Info("braidstream_worker", "What this worker is.", registry=registry)
        self._consumed = Counter(
            "braidstream_records_consumed", "Records taken, whose results are in the log.", ["topic"], registry=registry
        )
        self._produced = Counter("braidstream_records_produced", "Records written.", ["topic"], registry=registry)
        self._dead = Counter(
            "braidstream_dead_letters", "Records dead-lettered.", ["stage", "exception"], registry=registry
        )
        self._batch = Histogram("braidstream_batch_records", "Records of a batch.", buckets=_SIZES, registry=registry)
        self._handler = Histogram(
            "braidstream_handler_seconds",
            "Time in the model or the join, a batch.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._transaction = Histogram(
            "braidstream_transaction_seconds",
            "Time from the first record produced until all is in the log, a batch.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._end_to_end = Histogram(
            "braidstream_end_to_end_seconds",
            "Time from a record's timestamp until its results are in the log, a sample of each batch.",
            ["topic"],
            buckets=_LATENCIES,
            registry=registry,
        )
        self._rollbacks = Counter(
            "braidstream_rollbacks", "Batches undone, to be read again.", ["reason"], registry=registry
        )
        self._outcomes = _outcomes(registry)
        self._state = _State(reasons, stalled, now)
        registry.register(self._state)

    def describe(self, **labels: str) -> None:
        """What this worker is: labels of `braidstream_worker_info`."""
        self._worker.info(labels)

    def turned(self) -> None:
        """The loop has turned now."""
        self._state.turned_at = self._now()

    def viewed(self, view: View) -> None:
        """Take the last view of the loop."""
        self._state.view = view

    def committed(self, work: Work) -> None:
        """Count what a batch gave."""
        for topic, records in work.consumed.items():
            self._consumed.labels(topic).inc(records)
        for topic, records in work.produced.items():
            self._produced.labels(topic).inc(records)
        for (stage, exception), letters in work.dead_letters.items():
            self._dead.labels(stage, exception).inc(letters)
        if size := sum(work.consumed.values()):
            self._batch.observe(size)
            self._handler.observe(work.handler_seconds)
        self._transaction.observe(work.transaction_seconds)
        now = self._now()
        latencies = {topic: self._end_to_end.labels(topic) for topic in dict(work.timestamps)}
        for topic, timestamp in work.timestamps:
            latencies[topic].observe(max(0, now - timestamp) / 1000)
        for name, count in work.counts.items():
            if (counter := self._outcomes.get(name)) is not None:
                counter.inc(count)

    def went_back(self, error: RetriableError) -> None:
        """Count a batch that is undone."""
        self._rollbacks.labels(reason_of(error)).inc()

    def render(self) -> bytes:
        """All of it in Prometheus' text format, `CONTENT_TYPE`."""
        return generate_latest(self.registry)


def reason_of(error: BaseException) -> str:
    """The name of Kafka's error behind this one, else the class of the innermost exception."""
    while True:
        if isinstance(error, KafkaException):
            name: str = error.args[0].name()
            return name
        if error.__cause__ is None:
            return type(error).__name__
        error = error.__cause__


def _outcomes(registry: CollectorRegistry) -> Mapping[str, Counter]:
    """What the join counts, and a handler of its own, by their names."""
    decisions = Counter("braidstream_decisions", "First decisions of a subject.", ["completeness"], registry=registry)
    repeats = Counter("braidstream_repeats", "Records known already, ignored.", ["of"], registry=registry)
    return {
        "complete": decisions.labels("complete"),
        "partial": decisions.labels("partial"),
        "late_decisions": Counter(
            "braidstream_late_decisions", "Decisions made later than DEADLINE_GRACE allows.", registry=registry
        ),
        "revisions": Counter("braidstream_revisions", "Decisions that revise an earlier one.", registry=registry),
        "late_predictions": Counter(
            "braidstream_late_predictions", "Predictions that came after the decision.", registry=registry
        ),
        "orphans": Counter(
            "braidstream_orphans", "Subjects dropped of which only predictions came.", registry=registry
        ),
        "forgotten_early": Counter(
            "braidstream_forgotten_early", "Subjects forgotten before REMEMBER was over.", registry=registry
        ),
        "repeats": repeats.labels("event"),
        "repeated_events": repeats.labels("event"),
        "repeated_predictions": repeats.labels("prediction"),
        "skipped": Counter(
            "braidstream_records_skipped", "Records taken that were sent back for another group.", registry=registry
        ),
    }


class _State(Collector):
    """What is the case now."""

    def __init__(
        self,
        reasons: Callable[[], Mapping[str, str | None]],
        stalled: Callable[[], Collection[Partition]],
        now: Callable[[], int],
    ) -> None:
        self.view = View({}, {}, {}, drained=False)
        self.turned_at = 0
        self._reasons = reasons
        self._stalled = stalled
        self._now = now

    def collect(self) -> Iterator[Metric]:
        view = self.view
        checks = GaugeMetricFamily("braidstream_check", "Whether a check of readiness holds.", labels=["check"])
        for check, reason in self._reasons().items():
            checks.add_metric([check], reason is None)
        yield checks
        turned = GaugeMetricFamily("braidstream_loop_turned_timestamp_seconds", "When the loop turned last.")
        turned.add_metric([], self.turned_at / 1000)
        yield turned
        rebalances = CounterMetricFamily("braidstream_rebalances", "What the group did.", labels=["event"])
        for event, count in view.rebalances.items():
            rebalances.add_metric([event], count)
        yield rebalances
        yield from self._partitions(view)
        yield from _held(view.gauges)

    def _partitions(self, view: View) -> Iterator[Metric]:
        labels = ["topic", "partition"]
        lag = GaugeMetricFamily("braidstream_lag_records", "Records that are there to be read.", labels=labels)
        behind = GaugeMetricFamily(
            "braidstream_lag_seconds", "Age of the last record read, 0 when there are no more.", labels=labels
        )
        paused = GaugeMetricFamily("braidstream_partition_paused", "Whether it is not read for now.", labels=labels)
        stands = GaugeMetricFamily("braidstream_partition_stalled", "Whether it stands still.", labels=labels)
        stalled, now = self._stalled(), self._now()
        for partition, reading in view.readings.items():
            at = [partition.topic, str(partition.number)]
            lag.add_metric(at, reading.lag)
            paused.add_metric(at, reading.paused)
            stands.add_metric(at, partition in stalled)
            if not reading.lag:
                behind.add_metric(at, 0)
            elif reading.read_at is not None:
                behind.add_metric(at, max(0, now - reading.read_at) / 1000)
        yield from (lag, behind, paused, stands)


def _held(gauges: Mapping[str, int]) -> Iterator[Metric]:
    """What a worker holds that keeps state; nothing for a model's worker."""
    if "restoring" not in gauges:
        return
    subjects = GaugeMetricFamily("braidstream_subjects", "Subjects in memory.", labels=["state"])
    for state in ("open", "waiting", "handled"):
        if state in gauges:
            subjects.add_metric([state], gauges[state])
    if "subjects_held" in gauges:
        subjects.add_metric(["closed"], gauges["subjects_held"] - gauges["open"] - gauges["waiting"])
    yield subjects
    left = GaugeMetricFamily("braidstream_restore_records_left", "Records of the changelog still to be read.")
    left.add_metric([], gauges["restoring"])
    yield left
