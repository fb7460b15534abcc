"""Reading TLC months: every form in which users have them, and what is no ride."""

from __future__ import annotations

import gzip
import shutil
import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braidstream import avro
from braidstream.avro import Codec, LocalSchemas
from braidstream.column_writer import ColumnWriter
from braidstream.errors import SettingsError
from producer.trips import Trips, encoded, named_month, read_trips, ride_ids, rides
from rides.pipeline import RIDES
from tests.real_trips import real_month

PICKUP = datetime(2023, 2, 3, 8, 15, 30)  # noqa: DTZ001 - the city's local time

GREEN: Mapping[str, Any] = {
    "VendorID": 2,
    "lpep_pickup_datetime": PICKUP,
    "lpep_dropoff_datetime": datetime(2023, 2, 3, 8, 27),  # noqa: DTZ001
    "PULocationID": 74,
    "DOLocationID": 75,
    "passenger_count": 1,
    "trip_distance": 2.5,
    "fare_amount": 12.0,
    "tip_amount": 3.25,
    "payment_type": 1,
}


def frame(*changes: Mapping[str, Any]) -> pl.DataFrame:
    """One row for each change, like `GREEN` but for that change."""
    return pl.DataFrame([{**GREEN, **change} for change in changes], infer_schema_length=None)


def parquet(folder: Path, *changes: Mapping[str, Any], name: str = "green_2023-02.parquet") -> Path:
    return write(folder, frame(*changes), name)


def write(folder: Path, rows: pl.DataFrame, name: str = "green_2023-02.parquet") -> Path:
    rows.write_parquet(folder / name)
    return folder / name


def csv(folder: Path, text: str, name: str = "green_2023-02.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def only_ride(trips: Trips) -> dict[str, Any]:
    assert trips.rejected() == {}
    (ride,) = trips.rides.drop("ride_id").to_dicts()
    return ride


PLAIN = {"pickup_at": PICKUP, "pickup_zone": 74, "dropoff_zone": 75, "trip_distance": 2.5, "passenger_count": 1}


def test_february_2023_has_64783_rides() -> None:
    trips = read_trips([real_month("2023-02")])
    assert trips.rides.height == 64_783
    assert trips.rejected() == {"pickup outside the file's month": 26}
    assert trips.rides["ride_id"].n_unique() == 64_783
    assert sum(1 for _ in rides(trips.rides.head(6_000))) == 6_000


def test_two_real_months_of_different_types_read_as_one() -> None:
    trips = read_trips([real_month("2023-02"), real_month("2023-01")], outcomes=True)
    assert trips.rides.height == 64_783 + 68_207
    assert trips.rides["pickup_at"].is_sorted()


def test_columns_and_types(tmp_path: Path) -> None:
    started = {
        "ride_id": pl.String(),
        "pickup_at": pl.Datetime("ms"),
        "pickup_zone": pl.Int32(),
        "dropoff_zone": pl.Int32(),
        "trip_distance": pl.Float64(),
        "passenger_count": pl.Int32(),
    }
    ended = {"dropoff_at": pl.Datetime("ms"), "tip_amount": pl.Float64(), "payment_type": pl.Int32()}
    path = parquet(tmp_path, {})
    assert dict(read_trips([path]).rides.schema) == started
    assert dict(read_trips([path], outcomes=True).rides.schema) == started | ended


def test_outcomes(tmp_path: Path) -> None:
    trips = read_trips([parquet(tmp_path, {}, {"tip_amount": None, "payment_type": None})], outcomes=True)
    assert trips.rides.select("dropoff_at", "tip_amount", "payment_type").rows() == [
        (GREEN["lpep_dropoff_datetime"], 3.25, 1),
        (GREEN["lpep_dropoff_datetime"], None, None),
    ]


@pytest.mark.parametrize(
    ("column", "dtype"),
    [
        ("lpep_pickup_datetime", pl.Datetime("ns")),
        ("lpep_pickup_datetime", pl.Datetime("us")),
        ("lpep_pickup_datetime", pl.Datetime("ms")),
        ("lpep_pickup_datetime", pl.Datetime("us", "UTC")),
        ("lpep_pickup_datetime", pl.String()),
        ("PULocationID", pl.Int16()),
        ("PULocationID", pl.UInt64()),
        ("PULocationID", pl.Float32()),
        ("PULocationID", pl.String()),
        ("PULocationID", pl.Categorical()),
        ("PULocationID", pl.Decimal(10, 2)),
        ("DOLocationID", pl.Float64()),
        ("trip_distance", pl.String()),
        ("trip_distance", pl.Float32()),
        ("passenger_count", pl.Float64()),
        ("passenger_count", pl.String()),
        ("passenger_count", pl.Int8()),
    ],
)
def test_any_column_type(tmp_path: Path, column: str, dtype: pl.DataType) -> None:
    rows = frame({}).with_columns(
        pl.col(column).dt.replace_time_zone("UTC") if dtype == pl.Datetime("us", "UTC") else as_type(column, dtype)
    )
    assert rows.schema[column] == dtype
    assert only_ride(read_trips([write(tmp_path, rows)])) == PLAIN


def as_type(column: str, dtype: pl.DataType) -> pl.Expr:
    return pl.col(column).cast(pl.String).cast(dtype) if dtype == pl.Categorical else pl.col(column).cast(dtype)


def test_numbers_as_text_of_floats_and_as_bytes(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"PULocationID": "74.0", "DOLocationID": b" 75 ", "passenger_count": "1.0"})
    assert only_ride(read_trips([path])) == PLAIN


def test_column_of_nothing(tmp_path: Path) -> None:
    rows = frame({}, {}).with_columns(passenger_count=pl.lit(None))
    assert rows.schema["passenger_count"] == pl.Null()
    trips = read_trips([write(tmp_path, rows)])
    assert trips.rides["passenger_count"].to_list() == [None, None]
    assert trips.rides["passenger_count"].dtype == pl.Int32()


@pytest.mark.parametrize(
    "text",
    [
        "2023-02-03 08:15:30",
        " 2023-02-03 08:15:30 ",
        "2023-02-03 08:15:30.000000",
        "2023-02-03T08:15:30",
        "2023-02-03T08:15:30Z",
        "2023-02-03 08:15:30 UTC",
        "2023-02-03T08:15:30-05:00",
        "02/03/2023 08:15:30 AM",
        "2/3/2023 8:15:30",
    ],
)
def test_times_as_text(tmp_path: Path, text: str) -> None:
    assert only_ride(read_trips([parquet(tmp_path, {"lpep_pickup_datetime": text})])) == PLAIN


def test_afternoon_and_missing_seconds(tmp_path: Path) -> None:
    texts = ["02/03/2023 03:04:05 PM", "2023-02-03 15:04", "2/3/2023 15:04"]
    trips = read_trips([parquet(tmp_path, *({"lpep_pickup_datetime": text} for text in texts))])
    assert sorted(time.strftime("%H:%M:%S") for time in trips.rides["pickup_at"]) == [
        "15:04:00",
        "15:04:00",
        "15:04:05",
    ]


def test_yellow(tmp_path: Path) -> None:
    rows = frame({}).rename(
        {"lpep_pickup_datetime": "tpep_pickup_datetime", "lpep_dropoff_datetime": "tpep_dropoff_datetime"}
    )
    trips = read_trips([write(tmp_path, rows)], outcomes=True)
    assert trips.rides["dropoff_at"].to_list() == [GREEN["lpep_dropoff_datetime"]]
    assert trips.rides["pickup_at"].to_list() == [PICKUP]


def test_any_case_blanks_and_order_of_column_names(tmp_path: Path) -> None:
    header = " Passenger_count, Trip_distance,DOLOCATIONID,pulocationid, Lpep_Pickup_Datetime ,fare"
    path = csv(tmp_path, f"{header}\n1,2.5,75,74,2023-02-03 08:15:30,12\n")
    assert only_ride(read_trips([path])) == PLAIN


HEADER = "VendorID,lpep_pickup_datetime,PULocationID,DOLocationID,passenger_count,trip_distance"
ROW = "2,2023-02-03 08:15:30,74,75,1,2.5"


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\n{ROW}\n",
        f"{HEADER}\r\n{ROW}\r\n",
        f"\ufeff{HEADER}\n{ROW}\n",
        f"{HEADER}\n{ROW}",
        f"{HEADER}\n{ROW},,\n",
        f"{HEADER.removeprefix('VendorID,')}\n{ROW.removeprefix('2,')},,\n",
        f'{HEADER}\n"2","2023-02-03 08:15:30","74","75.0","1","2.5"\n',
    ],
    ids=[
        "plain",
        "windows",
        "byte order mark",
        "no last newline",
        "more commas than names",
        "only what is read, more commas",
        "quoted",
    ],
)
def test_csv(tmp_path: Path, text: str) -> None:
    assert only_ride(read_trips([csv(tmp_path, text)])) == PLAIN


def test_compressed_csv(tmp_path: Path) -> None:
    path = tmp_path / "green_2023-02.csv.gz"
    path.write_bytes(gzip.compress(f"{HEADER}\n{ROW}\n".encode()))
    assert only_ride(read_trips([path])) == PLAIN


def test_path_is_taken_literally(tmp_path: Path) -> None:
    folder = tmp_path / "year=2023" / "[trips] *"
    folder.mkdir(parents=True)
    assert only_ride(read_trips([parquet(folder, {})])) == PLAIN


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (0.0, None),
        (-1.5, None),
        (100.01, None),
        (float("nan"), None),
        (float("inf"), None),
        (None, None),
        (100.0, 100.0),
        (0.01, 0.01),
    ],
)
def test_trip_distance(tmp_path: Path, value: float | None, kept: float | None) -> None:
    path = parquet(tmp_path, {"trip_distance": value})
    assert only_ride(read_trips([path]))["trip_distance"] == kept


@pytest.mark.parametrize(("value", "kept"), [(0, None), (-1, None), (None, None), (2.5, None), (6, 6)])
def test_passenger_count(tmp_path: Path, value: float | None, kept: int | None) -> None:
    path = parquet(tmp_path, {"passenger_count": value})
    assert only_ride(read_trips([path]))["passenger_count"] == kept


def test_fare_tip_and_dropoff_make_no_reject(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"fare_amount": -3.0, "tip_amount": -1.0, "lpep_dropoff_datetime": None})
    assert only_ride(read_trips([path])) == PLAIN


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lpep_pickup_datetime": None}, "no pickup time"),
        ({"lpep_pickup_datetime": datetime(2023, 1, 31, 23, 59, 59)}, "pickup outside the file's month"),  # noqa: DTZ001
        ({"lpep_pickup_datetime": datetime(2023, 3, 1)}, "pickup outside the file's month"),  # noqa: DTZ001
        ({"lpep_pickup_datetime": datetime(2009, 2, 3)}, "pickup outside the file's month"),  # noqa: DTZ001
        ({"PULocationID": None}, "no zone"),
        ({"DOLocationID": None}, "no zone"),
        ({"PULocationID": 74.5}, "no zone"),
        ({"DOLocationID": float("nan")}, "no zone"),
        ({"PULocationID": "NV"}, "no zone"),
        ({"PULocationID": 0}, "zone outside 1..265"),
        ({"DOLocationID": 266}, "zone outside 1..265"),
        ({"PULocationID": -1}, "zone outside 1..265"),
        ({"DOLocationID": 2**40}, "zone outside 1..265"),
        ({"DOLocationID": float("inf")}, "zone outside 1..265"),
        ({"lpep_pickup_datetime": None, "PULocationID": None}, "no pickup time"),
        ({"PULocationID": 999, "DOLocationID": None}, "no zone"),
    ],
)
def test_reject_reasons(tmp_path: Path, change: Mapping[str, Any], reason: str) -> None:
    trips = read_trips([parquet(tmp_path, change)])
    assert trips.rides.is_empty()
    assert trips.rejected() == {reason: 1}


@pytest.mark.parametrize("zone", [1, 264, 265])
def test_last_zones_are_zones(tmp_path: Path, zone: int) -> None:
    assert only_ride(read_trips([parquet(tmp_path, {"PULocationID": zone})]))["pickup_zone"] == zone


def test_rejects_say_where_and_what(tmp_path: Path) -> None:
    path = csv(tmp_path, f"{HEADER}\n{ROW}\n2,yesterday,74,75,1,2.5\n{ROW}\n2,2023-02-03 09:00:00,,N/A,1,2.5\n")
    trips = read_trips([path])
    assert trips.rides.height == 2
    assert trips.rejects.to_dicts() == [
        {
            **{"file": str(path), "row": 2, "reason": "no pickup time"},
            **{"pickup_at": "yesterday", "pickup_zone": "74", "dropoff_zone": "75"},
        },
        {
            **{"file": str(path), "row": 4, "reason": "no zone"},
            **{"pickup_at": "2023-02-03 09:00:00", "pickup_zone": None, "dropoff_zone": "N/A"},
        },
    ]


def test_rejects_are_counted_in_the_order_of_the_reasons(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"PULocationID": 0}, {"PULocationID": 0}, {"lpep_pickup_datetime": None}, {})
    assert list(read_trips([path]).rejected().items()) == [("no pickup time", 1), ("zone outside 1..265", 2)]


@pytest.mark.parametrize(
    ("name", "month"),
    [
        ("green_tripdata_2023-02.parquet", "2023-02"),
        ("2023-02-sorted.csv", "2023-02"),
        ("trips.parquet", None),
        ("trips_2023-13.parquet", None),
        ("trips_12023-021.parquet", None),
        ("trips_2023-01_to_2023-03.parquet", None),
        ("trips_2023-01_again_2023-01.parquet", "2023-01"),
    ],
)
def test_month_in_a_name(name: str, month: str | None) -> None:
    assert named_month(Path("year-2022-07") / name) == month


def at(year: int, month: int) -> dict[str, Any]:
    return {"lpep_pickup_datetime": datetime(year, month, 9)}  # noqa: DTZ001


def test_without_a_month_in_the_name_every_common_month_counts(tmp_path: Path) -> None:
    changes = [at(2023, 1)] * 150 + [at(2023, 3)] * 48 + [at(2023, 4)] * 2 + [at(2023, 5)]
    trips = read_trips([parquet(tmp_path, *changes, name="trips.parquet")])
    assert trips.rejected() == {"pickup outside the file's month": 3}
    trips = read_trips([parquet(tmp_path, *changes[:-1], name="trips.parquet")])
    assert trips.rejected() == {}


def test_without_a_month_in_the_name_an_implausible_year_never_counts(tmp_path: Path) -> None:
    trips = read_trips([parquet(tmp_path, at(1970, 1), at(2100, 1), at(2023, 1), name="trips.parquet")])
    assert trips.rejected() == {"pickup outside the file's month": 2}


def test_sorted_by_pickup_and_otherwise_in_order_of_files_and_rows(tmp_path: Path) -> None:
    early = {"lpep_pickup_datetime": datetime(2023, 2, 1)}  # noqa: DTZ001
    first = parquet(tmp_path, {"trip_distance": 1.0}, {"trip_distance": 2.0, **early}, name="a_2023-02.parquet")
    second = parquet(tmp_path, {"trip_distance": 3.0}, {"trip_distance": 4.0, **early}, name="b_2023-02.parquet")
    assert read_trips([first, second]).rides["trip_distance"].to_list() == [2.0, 4.0, 1.0, 3.0]
    assert read_trips([second, first]).rides["trip_distance"].to_list() == [4.0, 2.0, 3.0, 1.0]


def test_ids_follow_content_and_row_not_place(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"PULocationID": 0}, {}, {})
    elsewhere = tmp_path / "copy_2023-02.parquet"
    shutil.copy(path, elsewhere)
    changed = parquet(tmp_path, {"PULocationID": 0}, {}, {"trip_distance": 9.0}, name="changed_2023-02.parquet")
    ids = read_trips([path]).rides["ride_id"].to_list()
    assert [int(ride_id[:8], 16) for ride_id in ids] == [2, 3]
    assert read_trips([elsewhere]).rides["ride_id"].to_list() == ids
    assert not {*read_trips([changed]).rides["ride_id"]} & {*ids}


checksums = st.binary(min_size=32, max_size=32).map(bytes.hex)
row_numbers = st.integers(1, 2**32 - 1)


@given(checksums, st.lists(row_numbers, unique=True))
def test_ids_are_distinct_uuids_and_stable(checksum: str, rows: list[int]) -> None:
    ids = ride_ids(checksum, rows)
    assert ids == ride_ids(checksum, rows)
    assert len(set(ids)) == len(rows)
    for ride_id in ids:
        parsed = uuid.UUID(ride_id)
        assert (str(parsed), parsed.version, parsed.variant) == (ride_id, 8, uuid.RFC_4122)


@given(checksums, checksums, row_numbers)
def test_ids_of_files_that_differ_early_differ(one: str, other: str, row: int) -> None:
    # The 90 bits in use are the first 92, less the two that make room for the variant.
    kept = 23 * 4
    used = [f"{int(checksum, 16):0256b}"[:kept] for checksum in (one, other)]
    used = [bits[:30] + bits[32:] for bits in used]
    assert (ride_ids(one, [row]) == ride_ids(other, [row])) == (used[0] == used[1])


def test_an_id_keeps_its_form_for_good() -> None:
    checksum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    assert ride_ids(checksum, [1, 255]) == [
        "00000001-0123-8456-989a-bcdef0123456",
        "000000ff-0123-8456-989a-bcdef0123456",
    ]


def test_events(tmp_path: Path) -> None:
    trips = read_trips([parquet(tmp_path, {}, {"passenger_count": 0, "trip_distance": 0.0})], outcomes=True)
    first, second = rides(trips.rides)
    assert first.model_dump() == {"ride_id": trips.rides["ride_id"][0], **PLAIN}
    assert (second.passenger_count, second.trip_distance) == (None, None)


def test_events_of_more_than_one_chunk_keep_their_order(tmp_path: Path) -> None:
    changes = [{"trip_distance": 1 + number / 1000} for number in range(12_000)]
    trips = read_trips([parquet(tmp_path, *changes)])
    assert [ride.trip_distance for ride in rides(trips.rides)] == [change["trip_distance"] for change in changes]


def sent(trips: Trips) -> list[bytes]:
    codec = Codec(RIDES.subjects.event_type, LocalSchemas(RIDES.subjects.event_type), "ride_started")
    batches = encoded(trips.rides, ColumnWriter(RIDES.subjects.event_type.latest, codec.header).encode)
    return [value for batch in batches for value in batch]


@pytest.mark.parametrize("month", ["2023-01", "2023-02"])
def test_what_is_sent_of_a_real_month_is_what_pydantic_and_fastavro_make_of_it(month: str) -> None:
    trips = read_trips([real_month(month)])
    schema = RIDES.subjects.event_type.latest
    assert sent(trips) == [avro.write(schema.local_id, schema, ride.model_dump()) for ride in rides(trips.rides)]


NUMBERS = st.none() | st.floats(width=32) | st.integers(-5, 270) | st.integers(-(2**40), 2**40)
TIMES = st.none() | st.datetimes() | st.datetimes(datetime(2023, 2, 1), datetime(2023, 3, 1))  # noqa: DTZ001
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "lpep_pickup_datetime": TIMES,
        "PULocationID": NUMBERS,
        "DOLocationID": NUMBERS,
        "passenger_count": NUMBERS,
        "trip_distance": NUMBERS,
    },
)


@given(changes=st.lists(CHANGES, min_size=1, max_size=20), name=st.sampled_from(["green_2023-02.parquet", "t.parquet"]))
def test_what_is_sent_of_any_file_reads_as_its_rides(
    tmp_path_factory: pytest.TempPathFactory, changes: list[dict[str, Any]], name: str
) -> None:
    trips = read_trips([write(tmp_path_factory.getbasetemp(), frame(*changes), name)])
    event_type = RIDES.subjects.event_type
    codec = Codec(event_type, LocalSchemas(event_type), "ride_started")
    assert [codec.decode(value) for value in sent(trips)] == list(rides(trips.rides))


def test_no_file() -> None:
    with pytest.raises(SettingsError, match="no file of trips was given"):
        read_trips([])


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.parquet does not exist"):
        read_trips([tmp_path / "absent.parquet"])


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not a file"):
        read_trips([tmp_path])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.parquet", b"", r"t\.parquet is empty: it has 0 bytes"),
        ("t.csv", b"", r"t\.csv is empty: it has 0 bytes"),
        ("t.csv", f"{HEADER}\n".encode(), r"t\.csv is empty: it has column names and no rows"),
        ("t.parquet", b"<?xml version='1.0'?><Error/>", r"t\.parquet cannot be read as parquet: "),
        ("t.parquet", b"PAR1" + bytes(40), r"t\.parquet cannot be read as parquet: "),
        ("t.csv", HEADER.encode() + b"\n\xff,\xfe\n", r"t\.csv cannot be read as csv: "),
        ("t.csv.gz", f"{HEADER}\n{ROW}\n".encode()[::-1], r"t\.csv\.gz "),
        (
            "t.csv",
            b"<html><body>Forbidden</body></html>\n",
            r"t\.csv is no file of TLC trips with zones: it lacks lpep_",
        ),
        ("t.xlsx", b"PK", r"t\.xlsx is neither \.parquet nor \.csv \(or \.csv\.gz\) by its name"),
    ],
)
def test_files_that_hold_no_trips(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsError, match=message) as raised:
        read_trips([tmp_path / name])
    assert "\n" not in str(raised.value)


def test_parquet_without_rows(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is empty: it has column names and no rows"):
        read_trips([write(tmp_path, frame({}).clear())])


def test_every_missing_column_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, frame({}).drop("lpep_pickup_datetime", "PULocationID", "tip_amount"))
    with pytest.raises(SettingsError) as raised:
        read_trips([path])
    missing = "lpep_pickup_datetime or tpep_pickup_datetime, PULocationID"
    assert str(raised.value) == f"{path} is no file of TLC trips with zones: it lacks {missing}"


def test_outcomes_are_only_needed_when_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, frame({}).drop("lpep_dropoff_datetime", "tip_amount", "payment_type"))
    assert only_ride(read_trips([path])) == PLAIN
    with pytest.raises(SettingsError, match=r"lacks lpep_dropoff_datetime or tpep_.*, tip_amount, payment_type$"):
        read_trips([path], outcomes=True)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("lpep_pickup_datetime", 1675412130, "lpep_pickup_datetime has the type Int64, which cannot be a time"),
        ("lpep_pickup_datetime", date(2023, 2, 3), "lpep_pickup_datetime has the type Date, which cannot be a time"),
        ("PULocationID", [74], r"PULocationID has the type List\(Int64\), which cannot be a number"),
        ("PULocationID", datetime(2023, 2, 3, tzinfo=UTC), "PULocationID has the type Datetime.*cannot be a number"),
        ("passenger_count", True, "passenger_count has the type Boolean, which cannot be a number"),
    ],
)
def test_column_of_an_unusable_type(tmp_path: Path, column: str, value: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_trips([parquet(tmp_path, {column: value})])


def test_the_same_file_twice(tmp_path: Path) -> None:
    path = parquet(tmp_path, {})
    elsewhere = shutil.copy(path, tmp_path / "copy.parquet")
    with pytest.raises(SettingsError, match=r"copy\.parquet has the same content as .*green_2023-02\.parquet"):
        read_trips([path, Path(elsewhere)])
