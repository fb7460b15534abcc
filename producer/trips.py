"""The rides of TLC trip records, the rows that are none, and the events made from them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from numpy.typing import NDArray
from pydantic import TypeAdapter

from braidstream import SettingsError
from producer.tlc import NUMBER, TIME, Column, read_columns
from schemas.ride_started import RideStarted

NO_PICKUP_TIME = "no pickup time"
OUTSIDE_MONTH = "pickup outside the file's month"
NO_ZONE = "no zone"
OUTSIDE_ZONES = "zone outside 1..265"
REASONS = (NO_PICKUP_TIME, OUTSIDE_MONTH, NO_ZONE, OUTSIDE_ZONES)
"""Why a row is no ride; a row's reason is the first that applies."""

_Values = NDArray[Any] | Sequence[Any]
_STARTED = {
    "pickup_at": Column(("lpep_pickup_datetime", "tpep_pickup_datetime"), TIME),
    "pickup_zone": Column(("PULocationID",), NUMBER),
    "dropoff_zone": Column(("DOLocationID",), NUMBER),
    "trip_distance": Column(("trip_distance",), NUMBER),
    "passenger_count": Column(("passenger_count",), NUMBER),
}
_ENDED = {
    "dropoff_at": Column(("lpep_dropoff_datetime", "tpep_dropoff_datetime"), TIME),
    "tip_amount": Column(("tip_amount",), NUMBER),
    "payment_type": Column(("payment_type",), NUMBER),
}
_ZONES = ("pickup_zone", "dropoff_zone")
_LAST_ZONE = 265
_MAX_INT = 2**31 - 1
_MAX_MILES = 100
_COMMON_MONTH = 0.01
_BATCH = 5_000
_EVENTS = TypeAdapter(list[RideStarted])

T = TypeVar("T")


@dataclass(frozen=True)
class Trips:
    """The rides of one or more files, sorted by pickup, and the rows that are no ride.

    `rides` has the columns ride_id (String), pickup_at (Datetime in ms, local time without a zone), pickup_zone and
    dropoff_zone (Int32, 1 to 265), trip_distance (Float64, miles; null when it was 0 or less, above 100 or no number)
    and passenger_count (Int32; null when it was 0 or missing). Read with outcomes it also has dropoff_at (Datetime in
    ms), tip_amount (Float64, dollars) and payment_type (Int32, TLC's code), each null where the file has no value.

    `rejects` has the columns file, row (the first row of a file is 1), reason, and pickup_at, pickup_zone and
    dropoff_zone as text, as they stand in the file.
    """

    rides: pl.DataFrame
    rejects: pl.DataFrame

    def rejected(self) -> dict[str, int]:
        """How many rows were rejected, by reason; a reason that no row has is left out."""
        counts = dict(self.rejects.group_by("reason").len().iter_rows())
        return {reason: counts[reason] for reason in REASONS if reason in counts}


def read_trips(paths: Sequence[Path], outcomes: bool = False) -> Trips:
    """Read the rides of TLC months; with `outcomes` also what was only known at the end of each ride, for training.

    Rides with the same pickup time stay in the order of the files and of their rows. Raises `SettingsError`, naming
    the file and what is wrong with it, when one cannot be read, lacks a column, has no rows, or is a copy of another.
    """
    if not paths:
        raise SettingsError("no file of trips was given")
    columns = _STARTED | _ENDED if outcomes else _STARTED
    known: dict[str, Path] = {}
    parts = []
    for path in paths:
        checksum = _checksum(path)
        if checksum in known:
            raise SettingsError(f"{path} has the same content as {known[checksum]}: give each file once")
        known[checksum] = path
        parts.append(_read_file(path, checksum, columns))
    return Trips(
        rides=pl.concat([part.rides for part in parts]).sort("pickup_at", maintain_order=True),
        rejects=pl.concat([part.rejects for part in parts]),
    )


def rides(frame: pl.DataFrame) -> Iterator[RideStarted]:
    """The events of `Trips.rides`, or of a part of it, in its order, made a few thousand at a time."""
    for chunk in frame.select(tuple(RideStarted.model_fields)).iter_slices(_BATCH):
        yield from _EVENTS.validate_python(chunk.to_dicts())


def encoded(frame: pl.DataFrame, encode: Callable[[Mapping[str, _Values], int], T]) -> Iterator[T]:
    """What `encode` makes of the same events a few thousand at a time, given as columns and their number."""
    for chunk in frame.select(tuple(RideStarted.model_fields)).iter_slices(_BATCH):
        columns = {
            values.name: values.to_list() if values.dtype == pl.String else values.to_numpy() for values in chunk
        }
        yield encode(columns, chunk.height)


def ride_ids(checksum: str, rows: Iterable[int]) -> list[str]:
    """The ids of the rides in these rows (from 1) of a file whose content has this SHA-256 in hexadecimal.

    Each is a version 8 UUID (RFC 9562, section 5.8): the row's number in 32 bits, then, around the version and variant
    bits, 90 bits of the checksum. So an id depends on what is in a file and not on where it lies, no two rows share
    one, and it says which row it stands for.
    """
    variant = "89ab"[int(checksum[7], 16) >> 2]
    tail = f"-{checksum[:4]}-8{checksum[4:7]}-{variant}{checksum[8:11]}-{checksum[11:23]}"
    return [f"{row:08x}{tail}" for row in rows]


def named_month(path: Path) -> str | None:
    """The month in a file's name, as 2023-02; None when the name holds none, or several."""
    months = set(re.findall(r"(?<!\d)20\d\d-(?:0[1-9]|1[0-2])(?!\d)", path.name))
    return months.pop() if len(months) == 1 else None


def _checksum(path: Path) -> str:
    if not path.exists():
        raise SettingsError(f"{path} does not exist")
    if not path.is_file():
        raise SettingsError(f"{path} is not a file")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error


def _read_file(path: Path, checksum: str, columns: Mapping[str, Column]) -> Trips:
    raw = read_columns(path, columns)
    parsed = raw.with_columns(columns[name].kind.parse(raw[name]).alias(name) for name in columns)
    reason = parsed.select(_reason(_months(path, parsed["pickup_at"]))).to_series()
    valid = parsed.filter(reason.is_null())
    ids = pl.Series("ride_id", ride_ids(checksum, valid["row"]), dtype=pl.String)
    return Trips(
        rides=valid.select(ids, *(_clean(name) for name in columns)),
        rejects=raw.with_columns(reason, file=pl.lit(str(path)))
        .filter(reason.is_not_null())
        .select(
            "file", "row", "reason", *(pl.col(name).cast(pl.String, strict=False) for name in ("pickup_at", *_ZONES))
        ),
    )


def _clean(name: str) -> pl.Expr:
    values = pl.col(name)
    match name:
        case "pickup_zone" | "dropoff_zone":
            return values.cast(pl.Int32)
        case "trip_distance":
            return pl.when((values > 0) & (values <= _MAX_MILES)).then(values)
        case "passenger_count":
            return _whole(values, at_least=1)
        case "payment_type":
            return _whole(values, at_least=0)
        case "tip_amount":
            return pl.when(values.is_finite()).then(values)
    return values


def _whole(values: pl.Expr, *, at_least: int) -> pl.Expr:
    fits = values.is_between(at_least, _MAX_INT) & (values == values.floor())
    return pl.when(fits).then(values).cast(pl.Int32)


def _month(pickup_at: pl.Expr) -> pl.Expr:
    return pickup_at.dt.year() * 100 + pickup_at.dt.month().cast(pl.Int32)


def _months(path: Path, pickup_at: pl.Series) -> list[int]:
    """The months that the file is of, as 202302: the one in its name, or those that hold 1 % of its rows."""
    named = named_month(path)
    if named is not None:
        return [int(named.replace("-", ""))]
    counts = pickup_at.to_frame().select(month=_month(pl.col("pickup_at"))).group_by("month").len()
    common = counts.filter(pl.col("len") >= _COMMON_MONTH * pickup_at.len(), pl.col("month").is_between(200001, 209912))
    return common["month"].sort().to_list()


def _reason(months: Sequence[int]) -> pl.Expr:
    in_month = pl.any_horizontal(pl.lit(False), *(_month(pl.col("pickup_at")) == month for month in months))
    no_zone = pl.any_horizontal(pl.col(zone).is_null() | (pl.col(zone) != pl.col(zone).floor()) for zone in _ZONES)
    in_zones = pl.all_horizontal(pl.col(zone).is_between(1, _LAST_ZONE) for zone in _ZONES)
    return (
        pl.when(pl.col("pickup_at").is_null())
        .then(pl.lit(NO_PICKUP_TIME))
        .when(~in_month)
        .then(pl.lit(OUTSIDE_MONTH))
        .when(no_zone)
        .then(pl.lit(NO_ZONE))
        .when(~in_zones)
        .then(pl.lit(OUTSIDE_ZONES))
        .alias("reason")
    )
