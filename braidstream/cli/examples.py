"""An event made up from what its model demands, for a test to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from braidstream.columns import FieldType, field_types
from braidstream.errors import SettingsError

M = TypeVar("M", bound=BaseModel)

_TIME = datetime(2026, 1, 1, 12)  # noqa: DTZ001 - the model says whether it has a zone
_STARTS: Mapping[str, Any] = {"int": 1, "float": 2.5, "datetime": _TIME}
_STEPS: Mapping[str, Any] = {"int": 1, "float": 1.0, "datetime": timedelta(days=1)}
_CHOICES: Mapping[str, str] = {"literal": "expected", "enum": "members"}
_OTHERS: Mapping[str, Any] = {"bool": True, "list": (), "tuple": (), "set": (), "dict": {}}


def example_of(model: type[M], given: Mapping[str, Any]) -> M:
    """An event with these fields, the others made up; raises `SettingsError` naming the field that cannot be."""
    types = field_types(model) or {}
    made = {name: value for name, known in types.items() if (value := _made_up(known)) is not None}
    try:
        return model.model_validate({**made, **given})
    except ValidationError as error:
        first, *_ = error.errors(include_url=False, include_input=False)
        field = ".".join(map(str, first["loc"])) or model.__name__
        raise SettingsError(
            f"no {model.__name__} can be made up for the test ({field}: {first['msg']}): give what is missing as JSON "
            "with --example FILE"
        ) from None


def _made_up(field: FieldType) -> Any:
    """A value that the field takes; None where that is not known, for the field's default or the user to say."""
    rules, kind = field.rules, field.kind
    if kind in _STEPS:
        is_aware = rules.get("tz_constraint") == "aware"
        return _within(_TIME.replace(tzinfo=UTC) if is_aware else _STARTS[kind], rules, _STEPS[kind])
    if kind in {"str", "bytes"}:
        text = "text"[: rules.get("max_length", 4)].ljust(rules.get("min_length", 0), "x")
        return text.encode() if kind == "bytes" else text
    if kind == "model":
        return example_of(rules["cls"], {})
    if kind in _CHOICES:
        return rules[_CHOICES[kind]][0]
    return _OTHERS.get(kind)


def _within(value: Any, rules: Mapping[str, Any], step: Any) -> Any:
    if (least := rules.get("ge")) is not None:
        value = max(value, least)
    if (below := rules.get("gt")) is not None and value <= below:
        value = below + step
    if (most := rules.get("le")) is not None:
        value = min(value, most)
    if (above := rules.get("lt")) is not None and value >= above:
        value = above - step
    return value
