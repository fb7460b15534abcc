"""What workers say of themselves over HTTP, on real Kafka, while things go wrong."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Producer
from testcontainers.core.container import DockerContainer

from braidstream.writer import open_writer
from producer.trips import read_trips, rides
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.integration.ride_pipeline import RidePipeline

pytestmark = pytest.mark.docker

Worker = subprocess.Popen[bytes]


def some_rides(sample: Path, count: int) -> list[RideStarted]:
    return list(rides(read_trips([sample]).rides.head(count)))


def send(pipeline: RidePipeline, events: list[RideStarted]) -> None:
    with open_writer(RIDES.subjects, pipeline.settings) as writer:
        for event in events:
            writer.send(event)


def reason(pipeline: RidePipeline, worker: Worker, check: str) -> str | None:
    """Why a check fails; None when it does not, or nobody answers."""
    answer = pipeline.answer_of(worker)
    return answer.reasons.get(check) if answer is not None else None


def ready(pipeline: RidePipeline, worker: Worker) -> bool:
    answer = pipeline.answer_of(worker)
    return answer is not None and answer.ready


def get(pipeline: RidePipeline, worker: Worker, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{pipeline.address_of(worker)}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def series(pipeline: RidePipeline, worker: Worker, name: str, labels: str = "") -> list[float]:
    """Every series of a metric that has these labels."""
    lines = get(pipeline, worker, "/metrics")[1].splitlines()
    found = [line for line in lines if line.startswith((f"{name}{{", f"{name} ")) and labels in line]
    return [float(line.rpartition(" ")[2]) for line in found]


def metric(pipeline: RidePipeline, worker: Worker, name: str, labels: str = "") -> float:
    """The sum of those series, of which there has to be one."""
    found = series(pipeline, worker, name, labels)
    assert found, f"there is no {name} with {labels}"
    return sum(found)


@contextmanager
def hanging(container: DockerContainer) -> Iterator[None]:
    """It stands still: connections stay open, and nothing is answered."""
    container.get_wrapped_container().pause()
    try:
        yield
    finally:
        container.get_wrapped_container().unpause()


Make = Callable[..., RidePipeline]


@pytest.fixture
def make(kafka: str, topic_prefix: str, models: Path, tmp_path: Path) -> Iterator[Make]:
    """Makes a pipeline with these settings; its topics are made when it is entered."""
    made: list[RidePipeline] = []

    def make(**settings: str) -> RidePipeline:
        environment = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "TOPIC_PREFIX": topic_prefix, **settings}
        made.append(RidePipeline(environment, models, tmp_path))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.__exit__()


def test_a_worker_says_what_it_lacks_until_it_is_ready(make: Make, sample: Path) -> None:
    bare = make()
    duration = bare.start("consumers.duration")
    decision = bare.start("decision_service", EXPECTED_MODELS="duration")
    for worker in (duration, decision):
        bare.wait_for(partial(_has_told, bare, worker, "assigned", "the worker is starting"), "what is missing")
        assert get(bare, worker, "/livez")[0] == 200
        assert get(bare, worker, "/readyz")[0] == 503
    with bare:
        bare.wait_until_started()
        assert get(bare, duration, "/readyz")[0] == 200
        answer = bare.answer_of(decision)
        assert answer is not None
        assert answer.partitions == 12

        send(bare, some_rides(sample, 300))
        bare.wait_for(lambda: bare.decided() == 300, "decisions")
        _check_metrics(bare, duration, decision)

        bare.stop(decision)
        again = bare.start("decision_service", EXPECTED_MODELS="duration")
        bare.wait_until_started()
        # Behind the last prediction there is still the end of its transaction.
        bare.wait_for(partial(_has_no_lag, bare, again), "the end of every lag after a restart")
        assert metric(bare, again, "braidstream_lag_records") == 0


def _has_no_lag(pipeline: RidePipeline, worker: Worker) -> bool:
    lags = series(pipeline, worker, "braidstream_lag_records") + series(pipeline, worker, "braidstream_lag_seconds")
    return sum(lags) == 0


def _has_told(pipeline: RidePipeline, worker: Worker, check: str, why: str) -> bool:
    return reason(pipeline, worker, check) == why


def _check_metrics(pipeline: RidePipeline, duration: Worker, decision: Worker) -> None:
    prefix = pipeline.settings.topic_prefix
    of_rides, of_predictions = f'topic="{prefix}ride_started"', f'topic="{prefix}predictions"'
    for worker in (duration, decision):
        assert metric(pipeline, worker, "braidstream_records_consumed_total", of_rides) == 300
        assert metric(pipeline, worker, "braidstream_end_to_end_seconds_count", of_rides) > 0
        assert metric(pipeline, worker, "braidstream_end_to_end_seconds_sum", of_rides) > 0
        assert metric(pipeline, worker, "braidstream_transaction_seconds_sum") > 0
        assert metric(pipeline, worker, "braidstream_handler_seconds_sum") > 0
        assert metric(pipeline, worker, "braidstream_rebalances_total", 'event="assigned"') >= 1
        assert set(series(pipeline, worker, "braidstream_check")) == {1.0}
        pipeline.wait_for(partial(_has_no_lag, pipeline, worker), "the end of every lag")
    assert metric(pipeline, duration, "braidstream_records_produced_total", of_predictions) == 300
    assert metric(pipeline, decision, "braidstream_records_consumed_total", of_predictions) == 300
    assert metric(pipeline, decision, "braidstream_decisions_total", 'completeness="complete"') == 300
    pipeline.wait_for(
        lambda: metric(pipeline, decision, "braidstream_subjects", 'state="closed"') == 300, "300 closed rides"
    )


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("module", ["consumers.duration", "decision_service"])
def test_a_worker_that_is_given_nothing_is_ready(make: Make, module: str, protocol: str) -> None:
    with make(PARTITIONS="1", KAFKA_GROUP_PROTOCOL=protocol) as pipeline:
        workers = [pipeline.start(module) for _ in range(2)]
        pipeline.wait_until_started()
        answers = [pipeline.answer_of(worker) for worker in workers]
        assert sorted(answer.partitions for answer in answers if answer is not None)[0] == 0


def test_a_broker_that_hangs_is_named(pipeline: RidePipeline, kafka: str, kafka_container: DockerContainer) -> None:
    worker = pipeline.start("consumers.duration")
    pipeline.wait_until_started()
    with hanging(kafka_container):
        pipeline.wait_for(lambda: reason(pipeline, worker, "broker_reachable") is not None, "the broker to be missed")
        assert f"no broker answers at {kafka}" in str(reason(pipeline, worker, "broker_reachable"))
        assert get(pipeline, worker, "/readyz")[0] == 503
        assert get(pipeline, worker, "/livez")[0] == 200
    pipeline.wait_for(lambda: ready(pipeline, worker), "the worker to be ready again")


def test_a_registry_that_hangs_is_named(make: Make, registry: str, registry_container: DockerContainer) -> None:
    with make(SCHEMA_REGISTRY_URL=registry) as pipeline:
        worker = pipeline.start("consumers.tip")
        pipeline.wait_until_started()
        with hanging(registry_container):
            pipeline.wait_for(lambda: not ready(pipeline, worker), "the registry to be missed")
            assert f"the registry at {registry} does not answer" in str(reason(pipeline, worker, "registry_reachable"))
            assert reason(pipeline, worker, "broker_reachable") is None
        pipeline.wait_for(lambda: ready(pipeline, worker), "the worker to be ready again")


def test_a_policy_that_hangs_makes_the_worker_not_alive(pipeline: RidePipeline, sample: Path) -> None:
    limits = {"KAFKA_MAX_POLL_INTERVAL_MS": "10000", "BROKER_TIMEOUT": "5"}
    worker = pipeline.start("tests.integration.hanging_policy", **limits)
    pipeline.wait_until_started()
    assert get(pipeline, worker, "/livez")[0] == 200
    send(pipeline, some_rides(sample, 1))
    pipeline.wait_for(lambda: get(pipeline, worker, "/livez")[0] == 503, "the loop to be missed")
    assert "wait_for_nobody" in get(pipeline, worker, "/livez")[1]
    assert "wait_for_nobody" in str(reason(pipeline, worker, "polling"))
    assert metric(pipeline, worker, "braidstream_check", 'check="polling"') == 0
    assert pipeline.logs().count("the loop does not turn") == 1


def test_a_partition_behind_an_open_transaction_is_named(pipeline: RidePipeline, sample: Path) -> None:
    """What another producer leaves open holds back whatever comes after it in that partition."""
    worker = pipeline.start("consumers.duration", BROKER_TIMEOUT="5")
    pipeline.wait_until_started()
    topic = pipeline.settings.named(RIDES.subjects.name)
    forgotten = Producer(
        {
            "bootstrap.servers": pipeline.environment["KAFKA_BOOTSTRAP_SERVERS"],
            "transactional.id": f"{pipeline.settings.topic_prefix}forgotten",
        }
    )
    forgotten.init_transactions(30)
    forgotten.begin_transaction()
    forgotten.produce(topic, b"not avro", b"x", partition=2)
    assert forgotten.flush(30) == 0
    send(pipeline, some_rides(sample, 100))
    pipeline.wait_for(lambda: reason(pipeline, worker, "moving") is not None, "a partition that is missed")
    assert reason(pipeline, worker, "moving") == f"not read for over 5 s although there are records: {topic} [2]"
    assert metric(pipeline, worker, "braidstream_partition_stalled", 'partition="2"') == 1
    assert metric(pipeline, worker, "braidstream_partition_stalled") == 1
    assert get(pipeline, worker, "/livez")[0] == 200
    forgotten.abort_transaction(30)
    pipeline.wait_for(lambda: ready(pipeline, worker), "the partition to be read again")
    pipeline.wait_for(lambda: len(pipeline.records(RIDES.predictions.name)) == 100, "every prediction")
