"""Events as columns: one numpy array for each field of an event's pydantic model.

What a column's values may be is read from the schema that pydantic itself validates by (`__pydantic_core_schema__`,
https://docs.pydantic.dev/latest/internals/architecture/), so the rules are written once, in the model. A rule that is
not understood here makes the whole model one that is validated event by event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

Flags = NDArray[np.bool_]
Array = NDArray[Any]

_NUMBERS = frozenset({"int", "float", "bool"})
_DTYPES: Mapping[str, str] = MappingProxyType(
    {"int": "int64", "float": "float64", "bool": "bool", "datetime": "datetime64[us]"}
)
_BOUNDS: Mapping[str, Callable[[Array, Any], Flags]] = MappingProxyType(
    {"ge": np.greater_equal, "gt": np.greater, "le": np.less_equal, "lt": np.less}
)
_UNDERSTOOD: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "int": frozenset({"type", "metadata", *_BOUNDS}),
        "float": frozenset({"type", "metadata", "allow_inf_nan", *_BOUNDS}),
        "bool": frozenset({"type", "metadata"}),
        "datetime": frozenset({"type", "metadata", "tz_constraint", "microseconds_precision", *_BOUNDS}),
        "str": frozenset({"type", "metadata", "min_length", "max_length"}),
    }
)
_PLAIN_CONFIG = frozenset({"title", "extra_fields_behavior", "allow_inf_nan"})


@dataclass(frozen=True)
class FieldType:
    """What pydantic demands of one field, as far as columns go.

    `kind` is pydantic's name of the type, `rules` its schema. `understood` says that `accepts` checks all of them.
    """

    kind: str
    nullable: bool
    rules: Mapping[str, Any]
    finite: bool
    understood: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the field's column. A number that may be missing is a float64, for its NaN."""
        if self.nullable and self.kind in _NUMBERS:
            return np.dtype(np.float64)
        return np.dtype(_DTYPES.get(self.kind, "object"))

    def column(self, values: Sequence[Any]) -> Array:
        """The column of these values."""
        if self.kind == "datetime":
            values = [_naive(value) for value in values]
        if self.dtype != object:
            return np.array(values, self.dtype)
        return _objects(values)

    def accepts(self, values: Array) -> Flags:
        """Which values pydantic would take; for text, `values` are the lengths in characters."""
        if self.kind == "float":
            # As pydantic does: its bounds are compared with the float that an integer becomes.
            values = values.astype(np.float64, copy=False)
        good = np.isfinite(values) if self.finite and self.kind == "float" else np.ones(len(values), np.bool_)
        for rule, holds in _BOUNDS.items():
            if (limit := self.rules.get(rule)) is not None:
                good &= holds(values, np.datetime64(_naive(limit)) if isinstance(limit, datetime) else limit)
        if (least := self.rules.get("min_length")) is not None:
            good &= values >= least
        if (most := self.rules.get("max_length")) is not None:
            good &= values <= most
        return good


def _naive(time: datetime | None) -> datetime | None:
    return time.astimezone(UTC).replace(tzinfo=None) if time is not None and time.tzinfo is not None else time


def _field_type(schema: Mapping[str, Any], finite: bool) -> FieldType:
    nullable = False
    while schema["type"] in ("nullable", "default"):
        nullable |= schema["type"] == "nullable"
        schema = schema["schema"]
    kind = schema["type"]
    understood = schema.keys() <= _UNDERSTOOD.get(kind, frozenset())
    finite = not schema.get("allow_inf_nan", not finite)
    return FieldType(kind, nullable, MappingProxyType(dict(schema)), finite, understood)


@cache
def field_types(model: type[BaseModel]) -> Mapping[str, FieldType] | None:
    """The types of a model's fields, none of them understood when it is also validated as a whole.

    None when it is no model of fields.
    """
    schema: Mapping[str, Any] = model.__pydantic_core_schema__
    plain, finite = True, False
    while schema["type"] != "model-fields":
        if "schema" not in schema or schema.get("root_model"):
            return None
        config = schema.get("config", {})
        plain &= schema["type"] == "model" and config.keys() <= _PLAIN_CONFIG
        plain &= not (schema.get("custom_init") or schema.get("post_init") or schema.get("strict"))
        finite |= config.get("allow_inf_nan") is False
        schema = schema["schema"]
    types = {}
    for name, field in schema["fields"].items():
        known = _field_type(field["schema"], finite)
        plain_name = "validation_alias" not in field
        types[name] = known if plain and plain_name else FieldType(**{**vars(known), "understood": False})
    return MappingProxyType(types)


class UnknownField(KeyError):
    """The events have no field of this name; the message names those that they have."""

    def __init__(self, name: str, there: Iterable[str]) -> None:
        super().__init__(name)
        self._name = name
        self._there = tuple(there)

    def __str__(self) -> str:
        near = get_close_matches(str(self._name), self._there, n=1)
        advice = f" (did you mean {near[0]}?)" if near else ""
        return f"the events have no field {self._name!r}; they have {', '.join(self._there)}{advice}"


class Columns(Mapping[str, Array]):
    """The fields of `rows` events, by name, made when they are asked for.

    An `int` is an int64, a `float` a float64, a `bool` a bool; each is a float64 if it may be None, which is NaN. A
    time is a datetime64[us], UTC if it has a zone, NaT for None. Anything else is an array of the Python values.

    They cannot be written to: the parts of a batch share them, and a part is tried again when a record of it fails.
    A name that is no field's raises `UnknownField`.
    """

    def __init__(self, rows: int, make: Mapping[str, Callable[[], Array]]) -> None:
        self.rows = rows
        self._make = make
        self._made: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        column = self._made.get(name)
        if column is None:
            if name not in self._make:
                raise UnknownField(name, self._make)
            column = self._made[name] = self._make[name]()
            column.flags.writeable = False
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self._make)

    def __len__(self) -> int:
        return len(self._make)

    def at(self, rows: slice | NDArray[np.int64] | Flags) -> Columns:
        """The same fields of some of the rows."""
        count = len(np.empty(self.rows, np.bool_)[rows])
        return Columns(count, {name: partial(self._part, name, rows) for name in self})

    @classmethod
    def of(cls, model: type[BaseModel], events: Sequence[BaseModel]) -> Columns:
        """The columns of validated events of this model."""
        types = field_types(model) or {}
        return cls(len(events), {name: partial(_column, types.get(name), events, name) for name in model.model_fields})

    @classmethod
    def merged(cls, parts: Sequence[tuple[Flags, Columns]]) -> Columns:
        """One batch of several that have the same fields: each with the places that its rows take, in their order."""
        rows = len(parts[0][0])
        return cls(rows, {name: partial(_merged, name, rows, parts) for name in parts[0][1]})

    def _part(self, name: str, rows: slice | NDArray[np.int64] | Flags) -> Array:
        part: Array = self[name][rows]
        return part


def _column(field: FieldType | None, events: Sequence[BaseModel], name: str) -> Array:
    values = [getattr(event, name) for event in events]
    if field is not None:
        return field.column(values)
    return _objects(values)


def _merged(name: str, rows: int, parts: Sequence[tuple[Flags, Columns]]) -> Array:
    column = np.empty(rows, parts[0][1][name].dtype)
    for places, columns in parts:
        column[places] = columns[name]
    return column


def _objects(values: Sequence[Any]) -> Array:
    column = np.empty(len(values), object)
    column[:] = values
    return column
