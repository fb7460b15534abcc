"""A model on disk: a folder of `model.onnx`, `model.skops` and `model.json`, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from braidstream.errors import SettingsError

ONNX = "model.onnx"
SKOPS = "model.skops"
CARD = "model.json"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Feature(_Record):
    """One column of the matrix that the model takes."""

    name: str
    type: Literal["float32", "string"] = "float32"


class DataSummary(_Record):
    """What a model was fitted on: how many rows, their checksum, and the times of the first and the last, if known."""

    rows: int
    sha256: str
    earliest: datetime | None
    latest: datetime | None


class ModelCard(_Record):
    """What `model.json` says of the model beside it.

    `schema_id` is the local id (`AvroSchema.local_id`) of the event's schema that the features were built from.
    `metrics` were measured on rows later than those of the model measured, which was then fitted again on all rows.
    `not_exported` says why there is no `model.onnx`, if there is none. `files` are the SHA-256 sums of the other files.
    """

    name: str
    version: str
    features: tuple[Feature, ...]
    schema_id: int
    metrics: Mapping[str, float]
    data: DataSummary
    libraries: Mapping[str, str]
    served_by: Literal["onnx", "scikit-learn"]
    not_exported: str | None
    files: Mapping[str, str]


def folder_of(uri: str) -> Path:
    """The folder that a model URI names: a path or `file://…`; raises `SettingsError` for anything else."""
    parts = urlsplit(uri)
    if not parts.scheme:
        return Path(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    raise SettingsError(f"{uri} cannot be loaded: only folders are supported so far, as a path or file:///path")


def is_model(folder: Path) -> bool:
    """Whether there is a model in this folder."""
    return (folder / CARD).is_file()


def read_card(folder: Path) -> ModelCard:
    """Read `model.json`; raises `SettingsError` when it is missing or cannot be understood."""
    path = folder / CARD
    try:
        return ModelCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, item["loc"])) or item["msg"] for item in error.errors())
        raise SettingsError(f"{path} does not describe a model ({fields}): train it again") from error


def read_file(folder: Path, card: ModelCard, name: str) -> bytes:
    """One of the files that the card lists; raises `SettingsError` when it is missing or is not the card's."""
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != card.files.get(name):
        raise SettingsError(f"{path} is not the file that {CARD} describes: copy the whole folder, or train it again")
    return content


def write_folder(folder: Path, card: ModelCard, files: Mapping[str, bytes], *, replace: bool = False) -> None:
    """Write a model in one step: the folder is there with all its files, or not at all, whenever this is stopped.

    Raises `SettingsError` when the folder cannot be written, when it is there already and `replace` is false, and
    when it holds anything that is not a model's.
    """
    try:
        if replace and (others := _others(folder)):
            raise SettingsError(f"{folder} is not replaced: it also holds {', '.join(others)}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            staging.chmod(0o755)
            for name, content in files.items():
                _write(staging / name, content)
            _write(staging / CARD, card.model_dump_json(indent=2).encode())
            _publish(staging, folder, replace)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise SettingsError(f"{folder} is there already, and is not replaced unless asked") from error
        raise SettingsError(f"{folder} cannot be written: {error.strerror}") from error


def _others(folder: Path) -> list[str]:
    return sorted({path.name for path in folder.iterdir()} - {ONNX, SKOPS, CARD}) if folder.exists() else []


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _publish(staging: Path, folder: Path, replace: bool) -> None:
    if not replace or not folder.exists():
        staging.rename(folder)
        return
    retired = staging.with_name(f"{staging.name}.old")
    folder.rename(retired)
    try:
        staging.rename(folder)
    except OSError:
        retired.rename(folder)
        raise
    shutil.rmtree(retired, ignore_errors=True)
