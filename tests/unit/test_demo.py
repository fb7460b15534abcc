"""The demo as users start it, on the embedded broker, and what its summary says."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from braidstream.dashboard.view import Latency
from braidstream.demo import Seen, tally
from braidstream.demo.broker import open_broker
from braidstream.demo.show import Show
from braidstream.demo.watch import Watch
from braidstream.embedded import PARTITIONS, EmbeddedBroker, appear
from braidstream.settings import Settings
from braidstream.streaming import clients, topics
from producer.sample import write_sample
from rides.demo.summary import summarize
from rides.pipeline import RIDES
from schemas.decision import Decision
from schemas.prediction import Prediction
from tests import command_line
from tests.terminal import ALTERNATE_OFF, CURSOR_ON, on_terminal

ROWS = 4_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)


COMMAND = [*command_line.COMMAND, "demo"]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_")}


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The demo in a process of its own, in a folder of its own."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def children(process: subprocess.Popen[Any]) -> list[int]:
    """The processes that this one started."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in listed.split()]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture(scope="module")
def trips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trips") / "green_tripdata_2024-05.parquet"
    write_sample(path, ROWS, seed=3, month="2024-05")
    return path


def test_every_ride_is_predicted_and_decided(tmp_path: Path, trips: Path) -> None:
    with demo(tmp_path, "--trips", str(trips), "--rides", "2000", "--json") as process:
        stdout, stderr = process.communicate(timeout=180)
    assert process.returncode == 0, stderr
    summary = json.loads(stdout.splitlines()[-1])
    assert summary["rides"] == 2000
    assert summary["rejected"] > 0
    assert summary["predictions"] == {"duration": 2000, "tip": 2000}
    assert summary["decisions"] == {"complete": 2000, "partial": 0, "missing": 0}
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]
    assert 1 < summary["error"]["duration_rmse_minutes"] < 12
    assert 0 < summary["error"]["tip_rmse_dollars"] < 6
    assert re.search(r"^[\d,]+ sent · duration [\d,]+ tip [\d,]+ · [\d,]+ decided, [\d,]+/s", stderr, re.MULTILINE)
    assert "\x1b" not in stderr


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_a_demo_that_is_told_to_end_leaves_no_process(tmp_path: Path, trips: Path) -> None:
    with demo(tmp_path, "--trips", str(trips), "--rate", "50") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "workers are ready" in line:
                break
        workers = children(process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(workers) == 5
    await_end(workers)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_a_demo_gives_the_terminal_back_at_ctrl_c(tmp_path: Path, trips: Path) -> None:
    command = [*COMMAND, "--trips", str(trips), "--rate", "500"]
    with on_terminal(command, environment(), cwd=tmp_path) as terminal:
        before = terminal.settings
        terminal.wait_for(lambda: "complete" in "".join(terminal.screen))
        screen, workers = terminal.screen, children(terminal.process)
        terminal.type("\x03")
        code = terminal.exit_code()
        after = terminal.settings
    assert code == 130
    assert screen[0].startswith("braidstream demo")
    assert [line.split()[0] for line in screen[3:5]] == ["ride_started", "predictions"]
    assert after == before
    shown, _, last = terminal.output.rpartition(ALTERNATE_OFF)
    assert CURSOR_ON in shown
    assert "interrupted; every process of the demo is stopped" in last
    assert len(workers) == 5
    await_end(workers)


def await_end(workers: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlives the demo"


def test_an_embedded_broker_that_is_there_already_is_taken_as_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with EmbeddedBroker() as there:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", there.bootstrap_servers)
        monkeypatch.setenv("BROKER_TIMEOUT", "1")
        monkeypatch.setenv("PARTITIONS", "7")
        with open_broker(RIDES, Show()) as broker:
            found = clients.admin(broker.settings).list_topics(timeout=10).topics

    assert "broker: librdkafka's embedded one: at least once" in capsys.readouterr().err
    assert {spec.name for spec in topics.specs(RIDES, broker.settings)} <= found.keys()
    assert {len(topic.partitions) for topic in found.values()} == {broker.settings.partitions}
    assert broker.environment == there.environment


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    with demo(tmp_path, "--trips", "nowhere.parquet") as process:
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "nowhere.parquet" in stderr
    assert "Traceback" not in stderr


def rides() -> pl.DataFrame:
    """Two rides of ten minutes, paid by card with two dollars of tip."""
    return pl.DataFrame(
        {
            "ride_id": ["a", "b"],
            "pickup_at": [datetime(2024, 1, 1, 12), datetime(2024, 1, 2, 12)],  # noqa: DTZ001 - as TLC has it
            "dropoff_at": [datetime(2024, 1, 1, 12, 10), datetime(2024, 1, 2, 12, 10)],  # noqa: DTZ001
            "tip_amount": [2.0, 2.0],
            "payment_type": [1, 1],
        }
    )


def test_what_somebody_else_writes_to_a_topic_is_counted_and_ends_no_demo() -> None:
    with EmbeddedBroker() as broker:
        settings = Settings(kafka={"bootstrap.servers": broker.bootstrap_servers}, partitions=PARTITIONS)
        producer: Any = clients.plain_producer(settings, "somebody else")
        appear(producer, [spec.name for spec in topics.specs(RIDES, settings)])
        with closing(Watch(settings, RIDES, ["duration"])) as watch:
            producer.produce("predictions", b"junk", b"k", 0)
            assert producer.flush(10) == 0
            deadline = time.monotonic() + 10
            while not watch.read(0.1):
                assert time.monotonic() < deadline
            assert (watch.counts["predictions"], watch.seen.predictions) == (1, {"duration": {}})


def test_models_that_nobody_awaits_are_left_out() -> None:
    found = Seen({})
    found.take(
        Prediction(prediction_id="p", subject_id="a", model="other", model_version="1", value=1.0, predicted_at=NOW),
        1.0,
    )
    assert (found.predictions, found.slowest()) == ({}, 0)


def seen(*decided: str) -> Seen:
    found = Seen({"duration": {}, "tip": {}})
    for ride in ("a", "b"):
        for model, value in (("duration", 13.0), ("tip", 1.0)):
            found.take(
                Prediction(
                    prediction_id="p", subject_id=ride, model=model, model_version="1", value=value, predicted_at=NOW
                ),
                1.0,
            )
    for ride in decided:
        found.take(
            Decision(
                subject_id=ride,
                revision=0,
                action="standard",
                reasons=[],
                complete=ride == "a",
                missing=[],
                evidence=[],
                opened_at=NOW,
                decided_at=NOW,
            ),
            3.0,
        )
    return found


def test_a_ride_without_a_decision_is_missing_and_the_run_is_not_ok() -> None:
    everything = {"duration": pl.lit(value=True), "tip": pl.lit(value=True)}
    summary = summarize(rides(), {"a": 1.0, "b": 1.0}, 3, seen("a"), everything)
    assert (summary.figures.complete, summary.figures.partial, summary.figures.missing) == (1, 0, 1)
    assert summary.failure == "1 rides were not decided"
    assert summary.as_json()["latency_ms"] == {"p50": 2000.0, "p99": 2000.0}
    assert summary.as_json()["error"] == {"duration_rmse_minutes": 3.0, "tip_rmse_dollars": 1.0}


def test_errors_are_measured_on_rides_that_were_not_trained_on() -> None:
    later = {"duration": pl.col("ride_id") == "b", "tip": pl.lit(value=False)}
    summary = summarize(rides(), {"a": 1.0, "b": 1.0}, 0, seen("a", "b"), later)
    assert summary.failure is None
    assert summary.figures.partial == 1
    assert (summary.errors["duration"].rides, summary.errors["tip"].rmse) == (1, None)
    assert any("not measured" in line for line in summary.as_lines())


def test_a_decision_that_comes_again_is_no_revision() -> None:
    found = seen("a")
    (first,) = found.decisions["a"]

    found.take(first, 5.0)
    found.take(first.model_copy(update={"revision": 1, "action": "review"}), 6.0)

    assert [decision.revision for decision in found.decisions["a"]] == [0, 1]
    assert tally({"a": 1.0}, found).latency == Latency(2000.0, 2000.0)
    assert tally({"a": 1.0}, found).actions == {"review": 1}
