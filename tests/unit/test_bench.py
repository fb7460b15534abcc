"""The benchmark's arithmetic, records and tables; nothing here asserts a time."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bench import report
from bench.bars import BARS, Bar, held
from bench.children import Sample, usage
from bench.measurements import (
    Measurement,
    Report,
    Spread,
    by_run,
    percentiles,
    rate_after,
    ratios,
    require_counts,
)
from bench.records import Backlog, ride_id, ride_number
from bench.staged import SEAMS, Seam, Stopwatch
from braidstream.avro import Codec, LocalSchemas
from braidstream.errors import SettingsError
from consumers.duration.train import DURATION
from consumers.tip.train import TIP
from producer.sample import write_sample
from producer.trips import read_trips
from rides.pipeline import RIDES

CONTEXT = {"date": "2026-01-02T03:04:05+00:00", "machine": {"cpu": "a CPU", "cores": 2}, "settings": {"rides": 10}}


def _measured(subject: str, *values: float, part: str = "scoring", figure: str = "records_per_s") -> list[Measurement]:
    return [Measurement(part, subject, run, {figure: value}) for run, value in enumerate(values)]


# Arithmetic


def test_a_spread_is_median_least_and_most() -> None:
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)


def test_ratios_are_taken_run_by_run() -> None:
    measured = _measured("ours", 10, 40) + _measured("ceiling", 20, 50, 70)

    over, under = (by_run(measured, "scoring", subject, "records_per_s") for subject in ("ours", "ceiling"))

    assert ratios(over, under) == [0.5, 0.8]


def test_figures_of_other_parts_and_names_are_left_out() -> None:
    measured = _measured("ours", 1) + _measured("ours", 2, part="decisions") + _measured("ours", 3, figure="cpu")

    assert by_run(measured, "scoring", "ours", "records_per_s") == {0: 1}


def test_a_rate_leaves_out_the_start() -> None:
    # A slow start, then 10 records each 100 ms.
    stamps = np.array([0] * 5 + [5_000 + 100 * (n // 10) for n in range(95)])

    rate, start, end = rate_after(stamps, 0.05)

    assert (start, end) == (5.0, 5.9)
    assert rate == pytest.approx(85 / 0.9)


def test_a_rate_does_not_depend_on_the_order_of_reading() -> None:
    stamps = np.arange(1_000)

    assert rate_after(np.random.default_rng(1).permutation(stamps), 0.05) == rate_after(stamps, 0.05)


def test_no_rate_is_made_of_one_moment() -> None:
    with pytest.raises(SettingsError, match="3 records came within a millisecond"):
        rate_after(np.array([7, 7, 7]), 0.05)


def test_right_counts_pass() -> None:
    require_counts(np.array([1, 0, 2, 0, 1, 2]), 3, 2, exactly=True)
    require_counts(np.array([1, 0, 2, 1]), 3, 1, exactly=False)


@pytest.mark.parametrize(
    ("seen", "exactly", "said"),
    [
        ([0, 2], True, "1 of 3 rides are not there 1 times, first ride 1: 0 times"),
        ([0, 2], False, "first ride 1: 0 times"),
        ([0, 1, 1, 2], True, "first ride 1: 2 times"),
        ([0, 1, 2, 3], False, "first ride 3: 1 times"),
    ],
    ids=["lost, exactly once", "lost, at least once", "repeated", "a stranger"],
)
def test_wrong_counts_are_an_error(seen: list[int], exactly: bool, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        require_counts(np.array(seen), 3, 1, exactly=exactly)


def test_percentiles() -> None:
    assert percentiles(np.arange(1001.0)) == pytest.approx({"p50_ms": 500, "p99_ms": 990, "p99_9_ms": 999})


def test_usage_is_that_of_the_samples_around_the_time() -> None:
    samples = [Sample(at, own=at * 2, machine=at**2) for at in range(10)]

    assert usage(samples, 2.5, 5.5) == usage(samples, 2, 6)
    assert usage(samples, 2, 6).own == 2
    assert usage(samples, 2, 6).machine == 8


# Stopwatches


def test_a_stage_is_charged_without_the_stages_inside_it() -> None:
    now = 0.0
    stopwatch = Stopwatch(cpu=lambda: now, clock=lambda: 2 * now)

    def spend(seconds: float) -> None:
        nonlocal now
        now += seconds

    def outer() -> None:
        spend(1)
        stopwatch.timed("inner", spend)(5)
        stopwatch.timed("inner", spend)(7)
        spend(2)

    stopwatch.timed("outer", outer)()

    assert stopwatch.cpu == {"outer": 3, "inner": 12}
    assert stopwatch.wall == {"outer": 6, "inner": 24}


def test_a_stage_that_fails_is_charged_and_raises() -> None:
    ticks = iter(range(100))
    stopwatch = Stopwatch(cpu=lambda: float(next(ticks)), clock=lambda: 0.0)

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        stopwatch.timed("stage", fail)()
    assert stopwatch.cpu == {"stage": 1}


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: f"{seam.owner.__name__}.{seam.name}")
def test_every_stage_is_a_function_of_the_worker(seam: Seam) -> None:
    assert callable(getattr(seam.owner, seam.name))


# Bars


def test_a_bar_of_a_ratio() -> None:
    bar = Bar("", "scoring", "ours", to="ceiling", at_least=0.65)

    assert bar.values(_measured("ours", 13) + _measured("ceiling", 20)) == [0.65]
    assert bar.met_by(0.65)
    assert not bar.met_by(0.64)
    assert bar.limit == "at least 0.65"


def test_a_bar_of_a_figure() -> None:
    bar = Bar("", "scoring", "ours", figure="p99_ms", at_most=20)

    assert bar.values(_measured("ours", 7, 8, figure="p99_ms")) == [7, 8]
    assert not bar.met_by(20.1)
    assert bar.limit == "at most 20"


def test_only_bars_that_were_measured_are_held() -> None:
    measured = _measured("duration, exactly once", 50) + _measured("pass-through, exactly once", 100)

    (item,) = held(measured)

    assert item.spread.median == 0.5
    assert not item.met


def test_bars_are_distinct() -> None:
    assert len({bar.text for bar in BARS}) == len(BARS)


# Records


@pytest.fixture(scope="module")
def backlog(tmp_path_factory: pytest.TempPathFactory) -> Backlog:
    folder = tmp_path_factory.mktemp("models")
    write_sample(folder / "trips_2023-01.parquet", 2_000, seed=1, month="2023-01")
    trips = read_trips([folder / "trips_2023-01.parquet"], outcomes=True)
    DURATION.train(trips, folder / "duration")
    TIP.train(trips, folder / "tip")
    return Backlog.of(folder / "trips_2023-01.parquet", folder)


def test_a_ride_id_tells_its_number() -> None:
    assert ride_number(ride_id(1_000_000).encode()) == 1_000_000


def test_records_are_rides_and_their_predictions(backlog: Backlog) -> None:
    schemas = LocalSchemas(RIDES.subjects.event_type, RIDES.predictions.event_type)
    trips = len(backlog.ride_tails)

    first, *_, again = (
        Codec(RIDES.subjects.event_type, schemas, "rides").decode(record.value)
        for record in backlog.rides(5, 6 + trips)
    )
    predicted = [
        Codec(RIDES.predictions.event_type, schemas, "predictions").decode(record.value)
        for record in backlog.predictions(5, 7)
    ]

    assert first.ride_id == ride_id(5)
    assert again == first.model_copy(update={"ride_id": ride_id(5 + trips)})
    assert [(p.subject_id, p.model) for p in predicted] == [
        (ride_id(number), model) for number in (5, 6) for model in ("duration", "tip")
    ]
    assert len({p.prediction_id for p in predicted}) == 4


def test_records_are_keyed_by_their_ride(backlog: Backlog) -> None:
    for record in [*backlog.rides(0, 3), *backlog.predictions(0, 3)]:
        assert record.key == ride_id(record.number).encode()


# The report


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = Report(CONTEXT, _measured("ours", 1, 2))
    written.save(tmp_path / "report.json")

    assert Report.load(tmp_path / "report.json") == written


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"measurements": [{"part": 1}]})])
def test_what_is_no_report_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)

    with pytest.raises(SettingsError, match=r"report\.json is no report of the benchmark"):
        Report.load(path)


def test_a_table_has_medians_and_the_spread_of_rates() -> None:
    screen = io.StringIO()
    figures = {"records_per_s": 123_456.7, "cpu": 0.98, "cpu_us": 7.25, "machine_cpu": 1.75, "peak_mb": 150.4}
    measured = [
        Measurement("scoring", subject, run, {name: value * (1 + run) for name, value in figures.items()})
        for run in range(3)
        for subject in ("duration by scikit-learn, exactly once", "pass-through, exactly once")
    ]

    report.show(Report(CONTEXT, measured), Console(file=screen, width=100))

    assert "246,913 (123,457-370,370)" in screen.getvalue()
    assert "a CPU, 2 cores" in screen.getvalue().replace("\n", " ")


@pytest.mark.parametrize(
    ("part", "subject", "figures", "last"),
    [
        (
            "scoring",
            "duration by scikit-learn, at least once",
            "records_per_s cpu cpu_us machine_cpu peak_mb",
            "peak MB",
        ),
        (
            "decisions",
            "exactly once, 1,000,000 open",
            "records_per_s rides_per_s cpu cpu_us machine_cpu peak_mb bytes_per_open restore_s",
            "restore s",
        ),
        (
            "latency",
            "pipeline, at least once, 1,000/s to prediction",
            "p50_ms p99_ms p99_9_ms idle_cpu",
            "CPU while idle",
        ),
    ],
)
def test_the_tables_fit_into_100_columns(part: str, subject: str, figures: str, last: str) -> None:
    large = {"records_per_s": 100_000.0, "rides_per_s": 100_000.0, "bytes_per_open": 600.0}
    measured = [
        Measurement(part, subject, run, {name: large.get(name, 160.0) * (1 + run) for name in figures.split()})
        for run in range(3)
    ]
    screen = io.StringIO()

    report.show(Report(CONTEXT, measured), Console(file=screen, width=100))

    assert max(map(len, screen.getvalue().splitlines())) <= 100
    assert "…" not in screen.getvalue()
    assert last in screen.getvalue()


def test_markdown_has_the_tables_the_bars_and_a_chart() -> None:
    measured = _measured("duration, exactly once", 80, 70, 60) + _measured("pass-through, exactly once", 100, 100, 100)

    lines = report.markdown(Report(CONTEXT, measured)).splitlines()

    assert "| duration, exactly once | 70 (60-80) |" in lines
    assert any("0.700 (0.600-0.800) | at least 0.65 | yes |" in line for line in lines)
    assert "  bar [70, 100]" in lines


def test_markdown_tables_have_a_rule_below_each_header() -> None:
    lines = report.markdown(Report(CONTEXT, _measured("ours", 1))).splitlines()
    headers = [(above, line) for above, line in pairwise(lines) if line.startswith("| ---")]

    assert headers
    assert all(above.count("|") == line.count("|") for above, line in headers)
