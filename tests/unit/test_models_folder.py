"""A model folder is whole or not there."""

import hashlib
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from braidstream.errors import SettingsError
from braidstream.models.folder import (
    CARD,
    ONNX,
    SKOPS,
    DataSummary,
    Feature,
    ModelCard,
    folder_of,
    is_model,
    read_card,
    read_file,
    write_folder,
)


def a_card(version: str, files: dict[str, bytes]) -> ModelCard:
    return ModelCard(
        name="price",
        version=version,
        features=(Feature(name="size"),),
        schema_id=7,
        metrics={"rmse": 1.5},
        data=DataSummary(rows=10, sha256="00", earliest=datetime(2023, 1, 1), latest=datetime(2023, 2, 1)),  # noqa: DTZ001
        libraries={"numpy": "2"},
        served_by="onnx",
        not_exported=None,
        files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    )


FILES = {ONNX: b"onnx", SKOPS: b"skops"}


def write(folder: Path, version: str = "1", replace: bool = False) -> None:
    write_folder(folder, a_card(version, FILES), FILES, replace=replace)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "price"
    write(folder)
    card = read_card(folder)
    assert card == a_card("1", FILES)
    assert read_file(folder, card, ONNX) == b"onnx"
    assert is_model(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["price"]


def test_a_model_is_not_replaced_unless_asked(tmp_path: Path) -> None:
    write(tmp_path / "price", "1")
    with pytest.raises(SettingsError, match="is there already"):
        write(tmp_path / "price", "2")
    assert read_card(tmp_path / "price").version == "1"
    write(tmp_path / "price", "3", replace=True)
    assert read_card(tmp_path / "price").version == "3"
    assert [path.name for path in tmp_path.iterdir()] == ["price"]


def test_a_folder_that_holds_anything_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(SettingsError, match=r"home is not replaced: it also holds thesis\.txt"):
        write(tmp_path / "home", replace=True)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("replace", [False, True])
def test_a_writing_that_fails_leaves_things_as_they_were(tmp_path: Path, replace: bool) -> None:
    if replace:
        write(tmp_path / "price", "1")
    files = {**FILES, "no such folder/file": b""}
    with pytest.raises(SettingsError, match="cannot be written: No such file"):
        write_folder(tmp_path / "price", a_card("2", files), files, replace=replace)
    assert [path.name for path in tmp_path.iterdir()] == (["price"] if replace else [])
    assert not replace or read_card(tmp_path / "price").version == "1"


def test_a_process_that_dies_while_writing_leaves_no_half_model(tmp_path: Path) -> None:
    dies = """
import os, sys
from pathlib import Path
from tests.unit.test_models_folder import FILES, a_card, write_folder

class Dies(dict):
    def items(self):
        yield "model.onnx", b"onnx"
        os._exit(9)

write_folder(Path(sys.argv[1]), a_card("1", FILES), Dies(FILES))
"""
    folder = tmp_path / "price"
    done = subprocess.run([sys.executable, "-c", dies, str(folder)], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 9
    assert not folder.exists()
    write(folder)
    assert is_model(folder)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "price")
    card = read_card(tmp_path / "price")
    (tmp_path / "price" / ONNX).write_bytes(b"half")
    with pytest.raises(SettingsError, match=r"model\.onnx is not the file that model\.json describes"):
        read_file(tmp_path / "price", card, ONNX)
    (tmp_path / "price" / SKOPS).unlink()
    with pytest.raises(SettingsError, match=r"model\.skops cannot be read: No such file"):
        read_file(tmp_path / "price", card, SKOPS)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "price"}'])
def test_a_card_that_is_none_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / CARD).write_text(text)
    with pytest.raises(SettingsError, match=r"model\.json does not describe a model"):
        read_card(tmp_path)


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("models/price", "models/price"),
        ("/srv/models/price", "/srv/models/price"),
        ("file:///srv/two%20words", "/srv/two words"),
        ("file://localhost/srv/price", "/srv/price"),
    ],
)
def test_a_uri_names_a_folder(uri: str, folder: str) -> None:
    assert folder_of(uri) == Path(folder)


@pytest.mark.parametrize("uri", ["s3://bucket/price", "models:/price@production", "runs:/1/price", "file://host/price"])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(SettingsError, match="only folders are supported so far"):
        folder_of(uri)
