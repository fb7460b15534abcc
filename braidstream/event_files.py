"""Files of events whose outcome is known: what models learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, TypeAdapter, ValidationError

from braidstream.avro import E
from braidstream.errors import SettingsError

_ROW = "row of the file"
_READERS: Mapping[str, Callable[[Path], pl.DataFrame]] = MappingProxyType(
    {
        # All of it as text: an id of digits is no number, and what a field is is for the model to say.
        ".csv": lambda path: pl.read_csv(path, infer_schema=False),
        ".jsonl": lambda path: pl.read_ndjson(path, infer_schema_length=None),
        ".ndjson": lambda path: pl.read_ndjson(path, infer_schema_length=None),
        ".parquet": pl.read_parquet,
    }
)


@dataclass(frozen=True)
class History(Generic[E]):
    """Events with what came of each, in their order; `skipped` rows had no outcome (null or NaN)."""

    events: Sequence[E]
    outcomes: NDArray[np.float64]
    skipped: int


def read_history(model: type[E], files: Sequence[Path], outcome: str) -> History[E]:
    """Read files that have the fields of an event as columns, and a column of this name with its outcome, a number.

    Rows keep the order of the files and of their lines. What is null, or left out of a line, is the field's default
    where it has one and may not be None. Raises `SettingsError` naming the file, and the row and field
    where it is one, that is not as it has to be.
    """
    parts = [_read(model, path, outcome) for path in files]
    return History(
        [event for part in parts for event in part.events],
        np.concatenate([part.outcomes for part in parts]),
        sum(part.skipped for part in parts),
    )


def _read(model: type[E], path: Path, outcome: str) -> History[E]:
    frame = _frame(path)
    fields = [name for name in model.model_fields if name in frame.columns]
    needed = [name for name, field in model.model_fields.items() if field.is_required()]
    if missing := [name for name in (*needed, outcome) if name not in frame.columns]:
        raise SettingsError(f"{path} lacks the columns {', '.join(missing)}: it has {', '.join(frame.columns)}")
    try:
        frame = frame.with_columns(pl.col(outcome).cast(pl.Float64)).with_row_index(_ROW, 1)
    except pl.exceptions.PolarsError as error:
        raise SettingsError(f"{path}: {outcome} is not a number: {str(error).splitlines()[0]}") from error
    known = frame.drop_nulls(outcome).drop_nans(outcome)
    if infinite := known.filter(pl.col(outcome).is_infinite())[_ROW].to_list():
        raise SettingsError(f"{path}, row {infinite[0]}: {outcome} is infinite; it has to be a finite number, or empty")
    try:
        events = TypeAdapter(list[model]).validate_python(_rows(model, known.select(fields)))  # type: ignore[valid-type]
    except ValidationError as error:
        raise SettingsError(f"{path}, {_first(error, known[_ROW], model)}") from None
    return History(events, known[outcome].to_numpy(), frame.height - known.height)


def _rows(model: type[BaseModel], frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows, without nulls that stand for a default: polars has one wherever a line leaves a field out."""
    optional = [name for name, field in model.model_fields.items() if not field.is_required()]
    empty = [name for name in optional if name in frame.columns and frame[name].null_count()]
    rows = frame.to_dicts()
    if defaults := _refuses_none(model, empty):
        return [
            {name: value for name, value in row.items() if value is not None or name not in defaults} for row in rows
        ]
    return rows


def _refuses_none(model: type[BaseModel], fields: Sequence[str]) -> set[str]:
    """Those of the fields that may not be None."""
    try:
        model.model_validate(dict.fromkeys(fields))
    except ValidationError as error:
        return {str(name) for found in error.errors() for name in found["loc"][:1]} & set(fields)
    return set()


def _frame(path: Path) -> pl.DataFrame:
    read = _READERS.get(path.suffix)
    if read is None:
        raise SettingsError(f"{path} is not read: files of events end in {', '.join(_READERS)}")
    try:
        return read(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SettingsError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def _first(error: ValidationError, rows: pl.Series, model: type[Any]) -> str:
    first, *_ = error.errors(include_url=False, include_input=False)
    index, *field = first["loc"]
    place = ".".join(map(str, field))
    return f"row {rows[int(index)]} is no {model.__name__}: {f'{place}: ' if place else ''}{first['msg']}"
