"""The dead letters of a topic, and the choice among them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click
from confluent_kafka import Message

from braidstream.cli.reading import TopicReader
from braidstream.errors import SettingsError
from braidstream.streaming.replay import Letter, Place, replayed_by, time_of

Replayed = Mapping[Place, datetime | None]
"""The dead letters that were sent back, and when."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class LetterBox:
    """The topic of dead letters as it was at one moment: what comes later is not seen.

    With `places` only their partitions are read, from the first of them on.
    """

    def __init__(self, reader: TopicReader, places: Collection[Place] = ()) -> None:
        for place in places:
            if place.partition not in reader.numbers:
                raise SettingsError(f"{place}: {reader.name} has the partitions 0 to {len(reader.numbers) - 1}")
        self._reader = reader
        self._starts = reader.starts({place.partition for place in places} if places else reader.numbers)
        self._ends = reader.ends(self._starts)
        for number, end in self._ends.items():
            first = min((place.offset for place in places if place.partition == number), default=0)
            self._starts[number] = min(max(self._starts[number], first), end)

    def replayed(self) -> Replayed:
        """What was sent back up to now, later than this moment too."""
        notes = self._reader.read(self._starts, self._reader.ends(self._starts))
        return {place: time_of(note) for note in notes if (place := replayed_by(note)) is not None}

    def record(self, place: Place) -> Message | None:
        """The record at a place; None when there is none, or no more."""
        end = min(place.offset + 1, self._ends[place.partition])
        found = self._reader.read({place.partition: self._starts[place.partition]}, {place.partition: end})
        return next(found, None)

    def letters(self) -> Iterator[Letter]:
        """The dead letters, those of one partition in order."""
        for record in self._reader.read(self._starts, self._ends):
            if replayed_by(record) is None:
                yield Letter.of(record)


@dataclass(frozen=True)
class Selection:
    """Which dead letters: those to which all that is given applies; `groups` are the names that it may have."""

    groups: Collection[str] = ()
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    places: frozenset[Place] = frozenset()

    def takes(self, letter: Letter) -> bool:
        """Whether a dead letter is meant; one without a time is not, where a time is asked for."""
        at = letter.written_at
        return (
            (not self.groups or letter.group in self.groups)
            and (self.reason is None or any(self.reason.lower() in text.lower() for text in _reasons(letter)))
            and (self.since is None or (at is not None and at >= self.since))
            and (self.until is None or (at is not None and at < self.until))
            and (not self.places or letter.place in self.places)
        )


def _reasons(letter: Letter) -> tuple[str, str, str]:
    return letter.exception, letter.stage, letter.message


def place(text: str) -> Place:
    """A place in the topic of dead letters, as a type of click's."""
    try:
        return Place.parse(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not of the form PARTITION:OFFSET, such as 3:17") from None


def time(text: str) -> datetime:
    """A time, as a type of click's: ISO 8601, in UTC where it says nothing else; or how long ago, in s, m, h or d."""
    if (span := re.fullmatch(r"(\d{1,5})([smhd])", text)) is not None:
        return datetime.now(UTC) - timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is neither a time such as 2026-01-31T12:00 (UTC) nor a span such as 2h"
        ) from None
