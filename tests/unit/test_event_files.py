"""Training from files of events whose outcome is known: what is read, what is refused, and the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import structlog
from sklearn.linear_model import LinearRegression

from braidstream import Columns, Event, EventType, FeatureSet, Matrix, Pipeline, SettingsError, Topic, pipeline
from braidstream.event_files import read_history
from braidstream.training import read_card, run_training


class Parcel(Event):
    """For the tests."""

    parcel_id: str
    kilometres: float
    note: str | None = None


ROWS = [
    {"parcel_id": "007", "kilometres": 10.5, "note": "fragile", "days": 1.0, "colour": "red"},
    {"parcel_id": "8", "kilometres": 20.0, "note": None, "days": None, "colour": "red"},
    {"parcel_id": "9", "kilometres": 30.0, "note": None, "days": 3.0, "colour": "red"},
]


def build(events: Columns) -> Matrix:
    return np.column_stack([events["kilometres"]]).astype(np.float32)


FEATURES: FeatureSet[Parcel] = FeatureSet(("kilometres",), build)


@pytest.fixture(autouse=True)
def _quiet_logs() -> None:
    structlog.reset_defaults()


def write(folder: Path, suffix: str, rows: list[dict[str, object]] = ROWS) -> Path:
    path, frame = folder / f"parcels{suffix}", pl.DataFrame(rows)
    if suffix == ".csv":
        frame.write_csv(path)
    elif suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_ndjson(path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".ndjson", ".parquet"])
def test_events_with_a_known_outcome_are_read_in_their_order(tmp_path: Path, suffix: str) -> None:
    history = read_history(Parcel, [write(tmp_path, suffix)], "days")

    assert history.events == [
        Parcel(parcel_id="007", kilometres=10.5, note="fragile"),
        Parcel(parcel_id="9", kilometres=30),
    ]
    assert history.outcomes.tolist() == [1, 3]
    assert history.skipped == 1


def test_several_files_are_one_history(tmp_path: Path) -> None:
    history = read_history(Parcel, [write(tmp_path, ".csv"), write(tmp_path, ".parquet")], "days")

    assert [event.parcel_id for event in history.events] == ["007", "9", "007", "9"]
    assert history.skipped == 2


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"parcel_id": "x", "days": 1.0}, "lacks the columns kilometres: it has parcel_id, days"),
        ({"parcel_id": "x", "kilometres": 1.0}, "lacks the columns days"),
        ({"parcel_id": "x", "kilometres": 1.0, "days": "soon"}, "days is not a number"),
        ({"parcel_id": "x", "kilometres": "far", "days": 1}, "row 1 is no Parcel: kilometres: Input should be a valid"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_that_is_not_as_it_has_to_be_is_refused(
    tmp_path: Path, suffix: str, row: dict[str, object], why: str
) -> None:
    path = write(tmp_path, suffix, [row])

    with pytest.raises(SettingsError) as refused:
        read_history(Parcel, [path], "days")

    assert str(refused.value).startswith(str(path))
    assert why in str(refused.value)


def test_the_row_that_is_named_is_the_one_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, ".jsonl", [*ROWS, {**ROWS[0], "kilometres": None}])

    with pytest.raises(SettingsError, match="row 4 is no Parcel: kilometres"):
        read_history(Parcel, [path], "days")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_outcome_that_is_nan_is_none(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix, [ROWS[0], {**ROWS[2], "days": float("nan")}])

    history = read_history(Parcel, [path], "days")

    assert history.outcomes.tolist() == [1]
    assert history.skipped == 1


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_outcome_that_is_infinite_is_refused_by_its_row(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix, [*ROWS, {**ROWS[2], "days": float("-inf")}])

    with pytest.raises(SettingsError, match="row 4: days is infinite"):
        read_history(Parcel, [path], "days")


class Invoice(Event):
    """For the tests: a default that may be replaced by None, and one that may not."""

    number: int
    currency: str = "EUR"
    discount: float | None = 0.5


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("invoices.ndjson", '{"number": 1, "currency": "USD", "days": 1}\n{"number": 2, "discount": 0.1, "days": 2}\n'),
        ("invoices.csv", "number,currency,discount,days\n1,USD,,1\n2,,0.1,2\n"),
    ],
)
def test_a_field_that_is_left_out_has_its_default_where_it_may_not_be_none(
    tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)

    history = read_history(Invoice, [tmp_path / name], "days")

    assert history.events == [
        Invoice(number=1, currency="USD", discount=None),
        Invoice(number=2, currency="EUR", discount=0.1),
    ]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("parcels.txt", "", "is not read: files of events end in .csv, .jsonl, .ndjson, .parquet"),
        ("parcels.csv", None, "cannot be read"),
        ("parcels.csv", "", "cannot be read"),
        ("parcels.parquet", "nothing of the kind", "cannot be read"),
        ("parcels.jsonl", "{", "cannot be read"),
    ],
)
def test_what_is_no_file_of_events_is_refused(tmp_path: Path, name: str, content: str | None, why: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)

    with pytest.raises(SettingsError, match=f"{name} {why}"):
        read_history(Parcel, [tmp_path / name], "days")


@pytest.fixture
def parcels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline[Parcel]:
    """A pipeline, in a folder that is current."""
    fields = [("parcel_id", "string"), ("kilometres", "double"), ("note", ["null", "string"])]
    schema = {"type": "record", "name": "Parcel", "fields": [{"name": name, "type": kind} for name, kind in fields]}
    (tmp_path / "parcel.v1.avsc").write_text(json.dumps(schema))
    monkeypatch.chdir(tmp_path)
    return pipeline(Topic("parcel", EventType.load(Parcel, "parcel", tmp_path), "parcel_id"))


def run(
    parcels: Pipeline[Parcel],
    monkeypatch: pytest.MonkeyPatch,
    *arguments: str,
    features: FeatureSet[Parcel] = FEATURES,
) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    with pytest.raises(SystemExit) as ended:
        run_training(parcels, "days", features, LinearRegression(), outcome="days")
    structlog.reset_defaults()
    return ended.value.code


def test_the_command_trains_once_and_again_when_it_is_forced(
    parcels: Pipeline[Parcel], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, object]] = [{"parcel_id": str(n), "kilometres": float(n), "days": n / 10} for n in range(40)]
    write(Path(), ".csv", [*rows, {"parcel_id": "x", "kilometres": 1.0, "days": None}])

    assert run(parcels, monkeypatch, "parcels.csv") == 0
    first, said = read_card(Path("models/days")), capsys.readouterr().out
    assert "rows without days, left out: 1" in said
    assert f"days {first.version} trained on 40 events and written to models/days" in said
    assert "held out: rmse " in said
    assert (first.data.rows, first.data.earliest) == (40, None)

    write(Path(), ".csv", [{**row, "days": 1.0} for row in rows])
    assert run(parcels, monkeypatch, "parcels.csv") == 0
    assert "already; --force trains it again, on these files" in capsys.readouterr().out
    assert read_card(Path("models/days")) == first

    assert run(parcels, monkeypatch, "parcels.csv", "--force") == 0
    assert read_card(Path("models/days")).version != first.version


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["none.csv"], "Error: none.csv cannot be read"),
        (["parcels.csv"], "Error: 2 rows are too few to train days: 10 are the least"),
        (["parcels.csv", "--model-uri", "s3://bucket/days"], "only folders are supported"),
        ([], "Missing argument 'FILE...'"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    parcels: Pipeline[Parcel],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    why: str,
) -> None:
    write(Path(), ".csv")

    assert run(parcels, monkeypatch, *arguments) == 2
    assert why in capsys.readouterr().err
    assert not Path("models").exists()


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda parcels: parcels["miles"], "build cannot make the features: the events have no field 'miles'; they "),
        (lambda parcels: np.ones((parcels.rows, 2)), "build gives 2 columns, and names has 1 (kilometres)"),
    ],
)
def test_features_that_are_wrong_are_said_in_a_sentence(
    parcels: Pipeline[Parcel],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    build: Callable[[Columns], Matrix],
    why: str,
) -> None:
    write(Path(), ".csv", [{"parcel_id": str(n), "kilometres": float(n), "days": n / 10} for n in range(40)])

    assert run(parcels, monkeypatch, "parcels.csv", features=FeatureSet(("kilometres",), build)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"Error: days cannot be trained: {why}")
    assert said.count("\n") == 1
