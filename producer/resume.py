"""A replay that can be stopped, or killed, and goes on: a small file says how far it was acknowledged."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from braidstream import SettingsError
from producer.replay import RecordWriter
from producer.rounds import Rounds

EVERY = 0.2
"""Seconds between two notes of how far a replay is: what was sent since the last one is sent again after a kill."""

_SENDING = 10
"""So many times as long as it waited for a note it sends before the next: a broker that is far away costs no more."""

MOST = 100_000
"""So many are sent between two notes, or one batch more: else a slow broker's queue would fill for minutes."""


class Position(BaseModel):
    """How far a replay was acknowledged, and which replay that was."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = 1
    topic: str
    """`EventWriter.identity` of where it goes."""
    rides: str
    """`Rounds.checksum` of what is sent."""
    salt: str | None
    """`Rounds.salt`, from which new ids follow."""
    acknowledged: int = Field(ge=0)
    """So many rides from the beginning on are in the topic, all of them."""

    def at(self, acknowledged: int) -> Position:
        """The same replay, so far."""
        return self.model_copy(update={"acknowledged": acknowledged})


def read_position(path: Path) -> Position | None:
    """What the file says; None when there is none. Raises `SettingsError` when it is no such file."""
    try:
        return Position.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise SettingsError(f"--resume: {path} was not written by --resume: give another file") from error
    except OSError as error:
        raise SettingsError(f"--resume: {path} cannot be read: {error.strerror}") from error


def write_position(path: Path, position: Position) -> None:
    """Replace the file by one that is on the disk as a whole; raises `SettingsError` when it cannot be written."""
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("w") as file:
            file.write(position.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise SettingsError(f"--resume: {path} cannot be written: {error.strerror}") from error


def _require_same(path: Path, found: Position, wanted: Position) -> None:
    if found.topic != wanted.topic:
        reason = f"goes to {found.topic}, not to {wanted.topic}"
    elif found.rides != wanted.rides:
        reason = "sends other rides: the files, their order or --start-at are not the same"
    elif (found.salt is None) != (wanted.salt is None):
        own, new = "their own ids, without --new-ids or --loop", "new ids, with --new-ids or --loop"
        reason = f"sends rides under {own if found.salt is None else new}"
    else:
        return
    raise SettingsError(
        f"--resume: {path} is of a replay that {reason}. Give another file, or delete it to begin anew."
    )


class Noting:
    """A writer that now and then waits for what it sent, and then notes how many records were sent in all."""

    def __init__(
        self,
        writer: RecordWriter,
        note: Callable[[int], object],
        clock: Callable[[], float] = time.monotonic,
        every: float = EVERY,
    ) -> None:
        self._writer = writer
        self._note = note
        self._clock = clock
        self._every = every
        self._due = clock() + every
        self._sent = 0
        self._noted = 0

    def send_many(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """As the writer does."""
        self._writer.send_many(keys, values)
        self._sent += len(keys)
        self._note_when_due()

    def poll(self, timeout: float) -> None:
        """As the writer does."""
        self._writer.poll(timeout)
        self._note_when_due()

    def flush(self) -> None:
        """As the writer does; everything that was sent is acknowledged then, and noted."""
        began = self._clock()
        self._writer.flush()
        if self._sent > self._noted:
            self._note(self._sent)
            self._noted = self._sent
        now = self._clock()
        self._due = now + max(self._every, _SENDING * (now - began))

    def _note_when_due(self) -> None:
        waiting = self._sent - self._noted
        if waiting >= MOST or (waiting and self._clock() >= self._due):
            self.flush()


def take_up(path: Path, rounds: Rounds, topic: str) -> tuple[Rounds, Position]:
    """The replay that the file is of, and how far it was; a file that there is not yet is written, for a new replay.

    New ids are those of the file. Raises `SettingsError` when the file is of another replay.
    """
    new = Position(topic=topic, rides=rounds.checksum(), salt=rounds.salt, acknowledged=0)
    found = read_position(path)
    if found is None:
        write_position(path, new)
        return rounds, new
    _require_same(path, found, new)
    return replace(rounds, salt=found.salt), found
