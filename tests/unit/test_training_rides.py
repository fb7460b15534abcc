"""Training the ride models, and its command line."""

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import structlog
from click.testing import CliRunner, Result
from polars.testing import assert_frame_equal

from braidstream.errors import SettingsError
from braidstream.models.folder import read_card
from consumers.duration.train import DURATION
from consumers.duration.train import main as train_duration
from consumers.duration.train import train as train_duration_in_process
from consumers.ride_training import RideTask, earliest_share
from consumers.tip.train import TIP
from consumers.tip.train import main as train_tip
from producer.sample import write_sample
from producer.trips import Trips, read_trips
from rides.pipeline import RIDES

REAL = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic month of trips."""
    path = tmp_path_factory.mktemp("trips") / "2023-01.parquet"
    write_sample(path, 2_000, 1, "2023-01")
    return path


@pytest.fixture(autouse=True)
def _quiet_logs() -> None:
    structlog.reset_defaults()


def run(task: RideTask, *arguments: str | Path) -> Result:
    command = train_duration if task is DURATION else train_tip
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    structlog.reset_defaults()
    return result


def ended(
    minutes: Sequence[float | None], tips: Sequence[float | None], payments: Sequence[int | None]
) -> pl.DataFrame:
    start = datetime(2023, 1, 1)  # noqa: DTZ001
    ends = [None if late is None else start + timedelta(minutes=late) for late in minutes]
    return pl.DataFrame(
        {"pickup_at": [start] * len(ends), "dropoff_at": ends, "tip_amount": tips, "payment_type": payments},
        schema_overrides={"pickup_at": pl.Datetime("ms"), "dropoff_at": pl.Datetime("ms")},
    )


def test_duration_learns_from_rides_of_1_to_60_minutes() -> None:
    frame = ended([None, -5, 0, 0.99, 1, 7.5, 60, 60.01, 1440], [0.0] * 9, [1] * 9)
    assert DURATION.outcomes(frame)["outcome"].to_list() == [1, 7.5, 60]


def test_tip_learns_from_card_trips_with_a_tip_of_0_or_more() -> None:
    frame = ended([5] * 6, [0.0, 2.5, -1, None, 3, 4], [1, 1, 1, 1, 2, None])
    assert TIP.outcomes(frame)["outcome"].to_list() == [0, 2.5]


def test_the_earliest_share_is_the_head() -> None:
    frame = pl.DataFrame({"ride": range(10)})
    assert earliest_share(frame, 0.3)["ride"].to_list() == [0, 1, 2]
    assert_frame_equal(earliest_share(frame, 1), frame)


@pytest.mark.parametrize("task", [DURATION, TIP], ids=lambda task: task.name)
def test_the_command_trains_once_and_measures_another_month(task: RideTask, month: Path, tmp_path: Path) -> None:
    folder = tmp_path / task.name
    trained = run(task, "--trips", month, "--model-uri", folder)
    assert trained.exit_code == 0, trained.output
    card = read_card(folder)
    assert (card.name, card.served_by) == (task.name, "onnx")
    assert tuple(feature.name for feature in card.features) == task.features.names
    assert card.schema_id == RIDES.subjects.event_type.latest.local_id
    assert f"{task.name} {card.version} trained on {card.data.rows:,} rides" in trained.stdout
    assert f"RMSE {card.metrics['rmse']:.2f} {task.unit}" in trained.stdout

    again = run(task, "--trips", month, "--model-uri", folder, "--earliest", "0.5")
    assert again.exit_code == 0
    assert f"holds {task.name} {card.version} already; --force trains it again" in again.stdout
    assert read_card(folder) == card

    forced = run(task, "--trips", month, "--model-uri", folder, "--earliest", "0.5", "--force", "--evaluate", month)
    assert forced.exit_code == 0
    assert read_card(folder).data.rows < card.data.rows
    latest = read_card(folder).data.latest
    assert latest is not None
    assert card.data.latest is not None
    assert latest < card.data.latest
    assert f"{task.name} on {month}: RMSE" in forced.stdout


def test_training_in_process_gives_the_model_of_the_command(month: Path, tmp_path: Path) -> None:
    trips = read_trips([month], outcomes=True)
    card = train_duration_in_process(trips, tmp_path / "one", earliest=0.3)
    assert run(DURATION, "--trips", month, "--model-uri", tmp_path / "two", "--earliest", "0.3").exit_code == 0
    assert read_card(tmp_path / "two").version == card.version
    with pytest.raises(SettingsError, match="is there already"):
        train_duration_in_process(trips, tmp_path / "one")


def test_too_few_rides_are_refused(month: Path, tmp_path: Path) -> None:
    trips = read_trips([month], outcomes=True)
    few = Trips(trips.rides.head(5), trips.rejects)
    with pytest.raises(SettingsError, match="of 5 rides are rides of 1 to 60 minutes, which is too few"):
        DURATION.train(few, tmp_path / "duration")
    none = Trips(trips.rides.head(0), trips.rejects)
    with pytest.raises(SettingsError, match="nothing to measure on"):
        DURATION.evaluate(none, str(tmp_path / "duration"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give --trips FILE to train, or --evaluate FILE"),
        (["--trips", "none.parquet"], "Error: none.parquet does not exist"),
        (["--trips", "none.parquet", "--model-uri", "s3://bucket/tip"], "only folders are supported so far"),
        (["--trips", "none.parquet", "--earliest", "1.5"], "'--earliest'"),
        (["--evaluate", "none.parquet"], "Error: none.parquet does not exist"),
    ],
)
def test_wrong_arguments_get_a_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(TIP, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_measuring_without_a_model_says_how_to_train_one(month: Path, tmp_path: Path) -> None:
    result = run(TIP, "--evaluate", month, "--model-uri", tmp_path / "tip")
    assert result.exit_code == 2
    assert f"Error: there is no model in {tmp_path / 'tip'}" in result.stderr
    assert "train it with `python -m consumers.tip.train --trips FILE`" in result.stderr


@pytest.mark.parametrize(("task", "rmse", "mae"), [(DURATION, 4.6, 2.9), (TIP, 2.27, 1.32)], ids=["duration", "tip"])
def test_a_model_of_january_predicts_february(task: RideTask, rmse: float, mae: float, tmp_path: Path) -> None:
    """Both are measured on rides of 1 to 60 minutes, as the figures to reach were."""
    january, february = (REAL / f"green_tripdata_2023-{number}.parquet" for number in ("01", "02"))
    if not february.exists():
        assert os.environ.get("CI") != "true", f"CI=true requires every test, and there are no trips in {REAL}"
        pytest.skip(f"there are no trips in {REAL}")
    card = task.train(read_trips([january], outcomes=True), tmp_path / task.name)
    assert card.served_by == "onnx"
    trips = read_trips([february], outcomes=True)
    ordinary = DURATION.outcomes(trips.rides).drop("outcome")
    measured = task.evaluate(Trips(ordinary, trips.rejects), str(tmp_path / task.name))
    assert measured["rmse"] <= rmse
    assert measured["mae"] <= mae
