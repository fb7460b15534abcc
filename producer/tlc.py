"""TLC's files: finding their columns under any of their names, and reading these whatever their types are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from braidstream import SettingsError

_TIME_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
)
_ZONE_SUFFIX = r" ?(Z|UTC|[+-]\d\d:?\d\d)$"
_TEXT = (pl.String, pl.Categorical, pl.Enum, pl.Binary)


@dataclass(frozen=True)
class Kind:
    """What a column stands for: how its values are read, and which types besides text they may have."""

    name: str
    accepts: Callable[[pl.DataType], bool]
    parse: Callable[[pl.Series], pl.Series]


@dataclass(frozen=True)
class Column:
    """A column by the names that TLC gives it (whatever their case), and what it stands for."""

    names: tuple[str, ...]
    kind: Kind


def _text(values: pl.Series) -> pl.Series:
    return values.cast(pl.String, strict=False).str.strip_chars()


def _is_text(values: pl.Series) -> bool:
    return any(values.dtype == kind for kind in _TEXT)


def _times(values: pl.Series) -> pl.Series:
    # A time zone is dropped, not converted: TLC's times are the city's, whatever a tool has called them since.
    if isinstance(values.dtype, pl.Datetime):
        return values.dt.replace_time_zone(None).cast(pl.Datetime("ms"))
    if not _is_text(values):
        return values.cast(pl.Datetime("ms"))
    text = _text(values).str.replace(_ZONE_SUFFIX, "").str.replace("T", " ", literal=True).alias("text")
    parsed = [pl.col("text").str.to_datetime(form, time_unit="ms", strict=False) for form in _TIME_FORMATS]
    return text.to_frame().select(pl.coalesce(parsed)).to_series()


def _numbers(values: pl.Series) -> pl.Series:
    return (_text(values) if _is_text(values) else values).cast(pl.Float64, strict=False).fill_nan(None)


TIME = Kind("a time", lambda dtype: isinstance(dtype, pl.Datetime), _times)
"""A time, read as Datetime in ms without a zone; null where it is none."""
NUMBER = Kind("a number", lambda dtype: dtype.is_numeric(), _numbers)
"""A number, read as Float64; null where it is none or NaN."""


def read_columns(path: Path, columns: Mapping[str, Column]) -> pl.DataFrame:
    """These columns as they stand in the file, under the keys of `columns`, after `row`, which counts from 1.

    Raises `SettingsError` when the file cannot be read, is empty, or has not got every column in a usable type.
    """
    try:
        table = _scan(path)
        schema = table.collect_schema()
        found = _find(path, schema.names(), columns)
        for name, column in columns.items():
            _check_type(path, found[name], schema[found[name]], column.kind)
        picked = table.select(pl.col(found[name]).alias(name) for name in columns)
        frame = picked.with_row_index("row", offset=1).collect()
    except (PolarsError, OSError) as error:
        reason = str(error).split("\n", maxsplit=1)[0].removeprefix("parquet: ")
        raise SettingsError(f"{path} cannot be read as {_format(path)}: {reason}") from error
    if frame.is_empty():
        raise SettingsError(f"{path} is empty: it has column names and no rows")
    return frame


def _format(path: Path) -> str:
    name = path.name.lower().removesuffix(".part")
    if name.endswith(".parquet"):
        return "parquet"
    if name.endswith((".csv", ".csv.gz")):
        return "csv"
    raise SettingsError(f"{path} is neither .parquet nor .csv (or .csv.gz) by its name")


def _scan(path: Path) -> pl.LazyFrame:
    if path.stat().st_size == 0:
        raise SettingsError(f"{path} is empty: it has 0 bytes")
    if _format(path) == "parquet":
        return pl.scan_parquet(path, glob=False, hive_partitioning=False)
    # TLC's csv files of 2013 to 2016 have two commas more in each row than in the header.
    return pl.scan_csv(path, glob=False, infer_schema=False, truncate_ragged_lines=True)


def _find(path: Path, names: Sequence[str], columns: Mapping[str, Column]) -> dict[str, str]:
    by_plain_name = {name.strip().lower(): name for name in reversed(names)}
    found, missing = {}, []
    for key, column in columns.items():
        matches = [by_plain_name[name.lower()] for name in column.names if name.lower() in by_plain_name]
        if matches:
            found[key] = matches[0]
        else:
            missing.append(" or ".join(column.names))
    if missing:
        raise SettingsError(f"{path} is no file of TLC trips with zones: it lacks {', '.join(missing)}")
    return found


def _check_type(path: Path, name: str, dtype: pl.DataType, kind: Kind) -> None:
    if not (kind.accepts(dtype) or dtype == pl.Null or any(dtype == text for text in _TEXT)):
        raise SettingsError(f"{path}: the column {name.strip()} has the type {dtype}, which cannot be {kind.name}")
