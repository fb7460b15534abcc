"""The contract between the parts: released schemas stay as they are, and every version reads every other."""

from __future__ import annotations

import json
import types
import typing
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import avro.schema
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from pydantic import AwareDatetime, BaseModel, NaiveDatetime, TypeAdapter, ValidationError
from pydantic_core import PydanticUndefined

import schemas
from braidstream.avro import AvroSchema, EventType
from braidstream.errors import SettingsError
from schemas.ride_started import RideStarted
from tests.unit.events import EVENT_TYPES

FOLDER = Path(schemas.__file__).parent
FILES = sorted(path.name for path in FOLDER.glob("*.avsc"))

RELEASED = {
    "decision.v1.avsc": 1162922023,
    "decision_state.v1.avsc": 1360559762,
    "decision_state.v2.avsc": 1334887971,
    "handled.v1.avsc": 1987772569,
    "prediction.v1.avsc": 1116210031,
    "ride_started.v1.avsc": 1842134049,
}
"""The local id of every version that was ever released. A change is a new file, and a new line here."""

SIMPLE: dict[Any, Any] = {
    str: "string",
    int: "int",
    float: "double",
    bool: "boolean",
    bytes: "bytes",
    AwareDatetime: {"type": "long", "logicalType": "timestamp-millis"},
    NaiveDatetime: {"type": "long", "logicalType": "local-timestamp-millis"},
}

event_types = pytest.mark.parametrize("event_type", EVENT_TYPES.values(), ids=EVENT_TYPES)


def test_no_released_version_was_edited_and_every_version_is_listed() -> None:
    found = {name: AvroSchema.from_text((FOLDER / name).read_text()).local_id for name in FILES}
    assert found == RELEASED


def test_the_local_id_rests_on_everything_but_docs_and_layout() -> None:
    text = (FOLDER / "prediction.v1.avsc").read_text()
    same = json.dumps(json.loads(text.replace("Name of the model.", "Its name.")))
    other = text.replace('"double"', '"float"')
    assert AvroSchema.from_text(same).local_id == AvroSchema.from_text(text).local_id
    assert AvroSchema.from_text(other).local_id != AvroSchema.from_text(text).local_id


def test_local_ids_keep_clear_of_a_registrys() -> None:
    assert all(2**30 <= local_id < 2**31 for local_id in RELEASED.values())
    assert len(set(RELEASED.values())) == len(RELEASED)


@pytest.mark.parametrize("name", FILES)
def test_every_record_and_field_has_a_doc(name: str) -> None:
    for record in records(json.loads((FOLDER / name).read_text())):
        assert record.get("doc"), record["name"]
        for field in record["fields"]:
            assert field.get("doc"), f"{record['name']}.{field['name']}"


def records(schema: Any) -> list[dict[str, Any]]:
    """Every record in a schema."""
    if isinstance(schema, list):
        return [record for branch in schema for record in records(branch)]
    if not isinstance(schema, dict):
        return []
    found = [record for field in schema.get("fields", []) for record in records(field["type"])]
    found += records(schema.get("items"))
    return [schema, *found] if schema["type"] == "record" else found


@event_types
def test_model_and_schema_agree(event_type: EventType[Any]) -> None:
    assert without_docs(json.loads(event_type.latest.text)) == {
        **record_of(event_type.model),
        "namespace": event_type.latest.parsed["name"].rpartition(".")[0],
    }


def without_docs(schema: Any) -> Any:
    if isinstance(schema, list):
        return [without_docs(branch) for branch in schema]
    if isinstance(schema, dict):
        return {key: without_docs(value) for key, value in schema.items() if key != "doc"}
    return schema


def record_of(model: type[BaseModel]) -> dict[str, Any]:
    """The Avro record that a model stands for: names, order, types, nullability and defaults."""
    fields = []
    hints = typing.get_type_hints(model, include_extras=True)
    for name, info in model.model_fields.items():
        field = {"name": name, "type": avro_type(hints[name])}
        if info.default is not PydanticUndefined:
            field["default"] = info.default
        fields.append(field)
    return {"type": "record", "name": model.__name__, "fields": fields}


def avro_type(hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return avro_type(arguments[0])
    if origin is list:
        return {"type": "array", "items": avro_type(arguments[0])}
    if origin in (typing.Union, types.UnionType):
        (other,) = (argument for argument in arguments if argument is not type(None))
        return ["null", avro_type(other)]
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return record_of(hint)
    return SIMPLE[hint]


@event_types
@pytest.mark.parametrize("number", [2**31, -(2**31) - 1])
def test_a_model_accepts_no_integer_that_its_schema_cannot_hold(event_type: EventType[Any], number: int) -> None:
    for hint in integers(event_type.model):
        with pytest.raises(ValidationError):
            TypeAdapter(hint).validate_python(number)


def integers(model: type[BaseModel]) -> list[Any]:
    """The hints of every integer in a model."""
    hints = typing.get_type_hints(model, include_extras=True).values()
    nested = [
        part for hint in hints for part in parts_of(hint) if isinstance(part, type) and issubclass(part, BaseModel)
    ]
    return [hint for hint in hints if int in parts_of(hint)] + [hint for part in nested for hint in integers(part)]


def parts_of(hint: Any) -> list[Any]:
    """A hint and everything in it."""
    return [hint, *(part for argument in typing.get_args(hint) for part in parts_of(argument))]


@event_types
def test_every_version_reads_every_other(event_type: EventType[Any]) -> None:
    for reader, writer in product(event_type.versions, repeat=2):
        assert incompatibilities(reader.text, writer.text) == []


def incompatibilities(reader: str, writer: str) -> list[str]:
    """What keeps the reader's schema from reading what the writer's wrote."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", avro.errors.IgnoredLogicalType)  # its library lacks local-timestamp-millis
        parsed = avro.schema.parse(reader), avro.schema.parse(writer)
    result = ReaderWriterCompatibilityChecker().get_compatibility(*parsed)  # type: ignore[no-untyped-call]
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    return sorted(result.messages)


@pytest.mark.parametrize(
    ("change", "forward", "backward"),
    [
        ({"name": "vendor", "type": ["null", "string"], "default": None}, True, True),
        ({"name": "vendor", "type": "string"}, True, False),
        ({"name": "pickup_zone", "type": "string"}, False, False),
        ({"name": "pickup_zone", "type": "long"}, False, True),
        ("pickup_zone", False, True),
        ("passenger_count", True, True),
    ],
    ids=[
        "optional field",
        "field without default",
        "another type",
        "wider type",
        "required removed",
        "optional removed",
    ],
)
def test_the_check_tells_what_is_compatible(change: dict[str, Any] | str, forward: bool, backward: bool) -> None:
    old = json.loads(EVENT_TYPES["ride_started"].latest.text)
    name = change if isinstance(change, str) else change["name"]
    fields = [field for field in old["fields"] if field["name"] != name]
    new = {**old, "fields": fields if isinstance(change, str) else [*fields, change]}
    assert (not incompatibilities(json.dumps(old), json.dumps(new))) is forward, "the old version reads the new one"
    assert (not incompatibilities(json.dumps(new), json.dumps(old))) is backward, "the new version reads the old one"


def test_versions_are_loaded_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    text = EVENT_TYPES["ride_started"].latest.text
    for version in (10, 2, 1):
        (tmp_path / f"ride_started.v{version}.avsc").write_text(text.replace('"rides"', f'"rides{version}"'))
    (tmp_path / "ride_started.vx.avsc").write_text("not a version")
    loaded = EventType.load(RideStarted, "ride_started", tmp_path)
    assert [version.parsed["name"] for version in loaded.versions] == [
        "rides1.RideStarted",
        "rides2.RideStarted",
        "rides10.RideStarted",
    ]
    assert loaded.latest is loaded.versions[-1]


def test_a_folder_without_the_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no schema ride_started.v1.avsc in "):
        EventType.load(RideStarted, "ride_started", tmp_path)
