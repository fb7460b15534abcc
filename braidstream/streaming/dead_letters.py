"""Dead letters: the record as it came, with headers that say where from and why; and when there are too many.

One that is sent back is for the group that could not process it: the other groups of its topic skip it.
"""

from __future__ import annotations

import math
import traceback
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from confluent_kafka import Message

from braidstream.deciding.join import PolicyError
from braidstream.errors import FatalError, PoisonRecord, message_of
from braidstream.streaming import traceparent
from braidstream.streaming.ports import Headers, partition_of
from braidstream.streaming.publisher import OutRecord

MAX_HEADER = 4096
"""Bytes that an exception's text may take in a header: the dead letter must stay smaller than its topic allows."""

PREFIX = "__connect.errors."
"""The headers have Kafka Connect's names (`errors.deadletterqueue.context.headers.enable`)."""

REPLAY = "braidstream.replay."
"""What is sent back has three headers more: `letter` (which dead letter it was), `attempt` (1 at first), `group`."""

REPLAY_GROUP = f"{REPLAY}group"
"""The group that a record which was sent back is for."""

_FRAMES = 10
"""The innermost ones of a stack trace are kept."""

Reason: TypeAlias = tuple[str, str]
"""Why a record is a dead letter: the stage, in Kafka Connect's terms, and the class of what was raised."""


def _text(value: object) -> bytes:
    return str(value).encode(errors="replace")[:MAX_HEADER]


def _cause(error: Exception) -> BaseException:
    return error.__cause__ if isinstance(error, PoisonRecord | PolicyError) and error.__cause__ is not None else error


def _stack_trace(error: BaseException) -> bytes:
    return "".join(traceback.format_exception(error, limit=-_FRAMES)).encode(errors="replace")[-MAX_HEADER:]


def reason_of(error: Exception) -> Reason:
    """Why a record that failed with this error is a dead letter."""
    cause = _cause(error)
    stage = error.stage if isinstance(error, PoisonRecord) else "TRANSFORMATION"
    return stage, f"{type(cause).__module__}.{type(cause).__qualname__}"


def dead_letter(topic: str, record: Message, error: Exception, group: str) -> OutRecord:
    """The dead letter of a record: key, value and headers untouched, on the partition number that it came from."""
    stage, exception = reason_of(error)
    context = {
        "topic": record.topic(),
        "partition": record.partition(),
        "offset": record.offset(),
        "stage": stage,
        "exception.class.name": exception,
        "exception.message": message_of(error),
        "group": group,
    }
    headers: Headers = [(name, value) for name, value in raw_headers(record) if not name.startswith(PREFIX)]
    headers += [(f"{PREFIX}{name}", _text(value)) for name, value in context.items() if value is not None]
    if not isinstance(error, PoisonRecord):
        # What cannot be read is somebody's data, this is somebody's code.
        headers.append((f"{PREFIX}exception.stacktrace", _stack_trace(_cause(error))))
    return topic, partition_of(record).number, record.key(), record.value(), headers


def raw_headers(record: Message) -> Headers:
    """The record's headers as pairs; none when one's name is not UTF-8, which the client cannot read."""
    try:
        headers = record.headers()
    except (SystemError, UnicodeDecodeError):
        return []
    if not headers:
        return []
    pairs: Sequence[tuple[str, object]] = list(headers.items()) if isinstance(headers, dict) else headers
    return [(name, value if isinstance(value, bytes | None) else _text(value)) for name, value in pairs]


def _have_headers(records: Iterable[Message]) -> bool:
    """Whether any of the records has headers; of most topics none has, and this is the fastest way to know."""
    try:
        return any(map(Message.headers, records))
    except (SystemError, UnicodeDecodeError):
        return True


class Addressed(NamedTuple):
    """A batch as it is for one group.

    `records` lacks those that were sent back for other groups, which are `skipped`. `sent_back` are the indexes, in
    `records`, of those that were sent back for this group; `traceparents` says by index which traces they are of.
    """

    records: Sequence[Message]
    skipped: Sequence[Message]
    sent_back: frozenset[int]
    traceparents: Mapping[int, bytes]

    def traces(self, indexes: Sequence[int]) -> Sequence[bytes | None]:
        """The `traceparent` of each of these records."""
        return list(map(self.traceparents.get, indexes)) if self.traceparents else [None] * len(indexes)


NOTHING = Addressed((), (), frozenset(), {})
"""No batch."""


def addressed(records: Sequence[Message], group: str) -> Addressed:
    """Sort out what was sent back."""
    if not _have_headers(records):
        return Addressed(records, (), frozenset(), {})
    aims, traceparents = _known_headers(records)
    if not aims:
        return Addressed(records, (), frozenset(), traceparents)
    skipped = {index for index, aim in aims.items() if aim != group.encode()}
    taken = [index for index in range(len(records)) if index not in skipped]
    return Addressed(
        [records[index] for index in taken],
        [records[index] for index in sorted(skipped)],
        frozenset(place for place, index in enumerate(taken) if index in aims),
        {place: traceparents[index] for place, index in enumerate(taken) if index in traceparents},
    )


def _known_headers(records: Sequence[Message]) -> tuple[dict[int, bytes | None], dict[int, bytes]]:
    """The groups that records were sent back for, and the traces that they are of, by index.

    A record's headers take half a microsecond to make: they are made once.
    """
    made: Iterable[Any] = map(Message.headers, records)
    try:
        return _known(made)
    except (SystemError, ValueError, TypeError):
        # A name that is not UTF-8, or a test's headers that are no list.
        return _known(map(raw_headers, records))


def _known(made: Iterable[Headers | None]) -> tuple[dict[int, bytes | None], dict[int, bytes]]:
    aims: dict[int, bytes | None] = {}
    traceparents: dict[int, bytes] = {}
    for at, headers in enumerate(made):
        for name, value in headers or ():
            if name == traceparent.HEADER:
                if (context := traceparent.read(value)) is not None:
                    traceparents[at] = context
            elif name == REPLAY_GROUP:
                aims[at] = value
    return aims, traceparents


class DeadLetterLimit:
    """Stops a worker whose records nearly all fail: that is a bad deployment, not bad records.

    `run` failures in a row, or more than `share` of the last `window` records, are too many. The share is looked at
    as soon as there are so many records that a run which is not too long is less. What `observe` was told counts for
    good with `commit`, and never with `rollback`: those records come again. `kind` is what is counted, for the message.
    """

    def __init__(self, kind: str, run: int, share: float, window: int = 10_000) -> None:
        self._kind = kind
        self._run = run
        self._share = share
        self._window = window
        self._enough = min(window, math.ceil(run / share))
        self._batches: deque[tuple[int, int]] = deque()
        self._records = self._failures = 0
        self._in_a_row = 0
        self._staged = (0, 0)
        self._staged_in_a_row = 0

    def observe(self, errors: Sequence[Exception | None]) -> None:
        """Take a batch, record by record in order: why each failed; raises `FatalError` when it is one too many."""
        if not errors:
            return
        failures = 0
        last: Exception | None = None
        for error in errors:
            self._staged_in_a_row = self._staged_in_a_row + 1 if error is not None else 0
            if error is not None:
                failures, last = failures + 1, error
            if self._staged_in_a_row >= self._run:
                raise self._too_many(f"{self._staged_in_a_row} in a row failed", "DEAD_LETTER_RUN", last)
        self._staged = self._staged[0] + len(errors), self._staged[1] + failures
        records, failures = self._in_window()
        if failures > self._share * records and records >= self._enough:
            raise self._too_many(f"{failures} of the last {records} failed", "DEAD_LETTER_SHARE", last)

    def commit(self) -> None:
        """What was observed is in the log."""
        self._in_a_row = self._staged_in_a_row
        if not self._staged[0]:
            return
        self._batches.append(self._staged)
        self._records, self._failures = self._records + self._staged[0], self._failures + self._staged[1]
        self._staged = (0, 0)
        while self._records - self._batches[0][0] >= self._window:
            records, failures = self._batches.popleft()
            self._records, self._failures = self._records - records, self._failures - failures

    def rollback(self) -> None:
        """What was observed since the last commit is read again."""
        self._staged = (0, 0)
        self._staged_in_a_row = self._in_a_row

    def _in_window(self) -> tuple[int, int]:
        """Records and failures of as few of the last batches, with what is staged, as fill the window."""
        records, failures = self._records + self._staged[0], self._failures + self._staged[1]
        for count, failed in self._batches:
            if records - count < self._window:
                break
            records, failures = records - count, failures - failed
        return records, failures

    def _too_many(self, what: str, setting: str, last: Exception | None) -> FatalError:
        why = f", the last with {type(last).__name__}: {message_of(last)}" if last is not None else ""
        return FatalError(
            f"{self._kind}: {what} ({setting}){why}. Stopping before they go to the dead letters: nothing of this "
            "batch was written. Mend the worker or the producer and start again, it goes on at the first record of this"
            f" batch; or raise {setting}, if they are bad records after all. Earlier ones: `braidstream dlq list`."
        )
