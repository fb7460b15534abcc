"""Dead letters sent back to where they came from, once.

A replay writes two records in one transaction: the dead letter's own, and a note beside the dead letter that this was
done. All replays of a topic of dead letters have one transactional id, so that a new one ends those before it. The
notes are read after that: nothing is sent twice, whoever else replays at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import NamedTuple, Self

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, KafkaException, Message

from braidstream.errors import FatalError, FencedError, UnavailableError
from braidstream.streaming.dead_letters import PREFIX, REPLAY, REPLAY_GROUP, raw_headers
from braidstream.streaming.ports import Headers, Producer
from braidstream.streaming.publisher import OutRecord

AT_ONCE = 500
"""Dead letters that are sent in one transaction, at most; it may not last longer than `transaction.timeout.ms`."""
BYTES_AT_ONCE = 8 * 1024 * 1024

_ATTEMPT = f"{REPLAY}attempt"
_LETTER = f"{REPLAY}letter"
_LAST_ABORT = 5.0
_FAILED = (KafkaError._STATE, KafkaError._FATAL)
"""`produce` only says that the transaction has failed; its end says why."""
_REFUSALS = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD)
"""What a broker has against a record, now and later."""
_GAP = KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER


class Place(NamedTuple):
    """Where a record is in the topic of dead letters."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of the form 3:17; raises `ValueError`."""
        partition, offset = map(int, text.split(":"))
        if partition < 0 or offset < 0:
            raise ValueError(text)
        return cls(partition, offset)


class Letter(NamedTuple):
    """A dead letter.

    What its headers do not say is empty or None; so is `offset` where no record was at fault, and `attempts`, how
    often it was sent back before it came here again, where the header is no number.
    """

    place: Place
    written_at: datetime | None
    key: bytes | None
    value: bytes | None
    headers: Headers
    topic: str
    partition: int | None
    offset: int | None
    group: str
    stage: str
    exception: str
    message: str
    stack_trace: str
    attempts: int | None

    @classmethod
    def of(cls, record: Message) -> Self:
        """The dead letter that a record of the topic is."""
        headers = raw_headers(record)
        said = {name: (value or b"").decode(errors="replace") for name, value in headers}
        texts = ("topic", "group", "stage", "exception.class.name", "exception.message", "exception.stacktrace")
        topic, group, stage, exception, message, trace = (said.get(f"{PREFIX}{name}", "") for name in texts)
        return cls(
            _place_of(record),
            time_of(record),
            record.key(),
            record.value(),
            headers,
            topic,
            _number(said.get(f"{PREFIX}partition")),
            _number(said.get(f"{PREFIX}offset")),
            group,
            stage,
            exception,
            message,
            trace,
            _number(said.get(_ATTEMPT, "0")),
        )


def replayed_by(record: Message) -> Place | None:
    """The dead letter that was sent back, if the record is the note of that."""
    headers = dict(raw_headers(record))
    if record.value() is not None or f"{PREFIX}topic" in headers:
        return None
    try:
        return Place.parse((headers.get(_LETTER) or b"").decode())
    except ValueError:
        return None


def time_of(record: Message) -> datetime | None:
    """When a record was written; None also where that is beyond the year 9999, as of who takes microseconds."""
    kind, milliseconds = record.timestamp()
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC) if kind != TIMESTAMP_NOT_AVAILABLE else None
    except (ValueError, OverflowError):
        return None


def obstacle(letter: Letter, partitions: Mapping[str, int], max_attempts: int) -> str | None:
    """Why a dead letter cannot be sent back; None when it can. `partitions` says how many a topic has that is read."""
    if not letter.topic or letter.partition is None or not letter.group:
        return "its headers do not say which topic, partition and group it is from"
    if letter.attempts is None:
        return f"its header {_ATTEMPT} is no number"
    if letter.topic not in partitions:
        return f"there is no topic {letter.topic} that workers of this pipeline read"
    if letter.partition >= partitions[letter.topic]:
        return f"{letter.topic} has no partition {letter.partition}"
    if letter.attempts >= max_attempts:
        return f"it was sent back {letter.attempts} times already (--max-attempts)"
    return None


def sent_back(letter: Letter, dead_letters: str) -> tuple[OutRecord, OutRecord]:
    """The record as its group is to read it again, and the note in the topic of dead letters that it was sent."""
    assert letter.partition is not None
    assert letter.attempts is not None
    replay: Headers = [
        (_LETTER, str(letter.place).encode()),
        (_ATTEMPT, str(letter.attempts + 1).encode()),
        (REPLAY_GROUP, letter.group.encode()),
    ]
    own = [header for header in letter.headers if not header[0].startswith((PREFIX, REPLAY))]
    return (
        (letter.topic, letter.partition, letter.key, letter.value, own + replay),
        (dead_letters, letter.place.partition, letter.key, None, replay),
    )


class Replay:
    """Sends dead letters back, which have no `obstacle`. `sent` counts them, and `refused` says why others were not.

    `timeout` in seconds bounds how long the broker may take to accept the producer.
    """

    def __init__(self, producer: Producer, dead_letters: str, timeout: float) -> None:
        self.sent = 0
        self.refused: dict[Place, str] = {}
        self._producer = producer
        self._dead_letters = dead_letters
        self._timeout = timeout
        self._open = False
        self._expected: tuple[int, ...] = _REFUSALS

    def begin(self) -> None:
        """End every other replay of this topic; what those have sent can be read from now on.

        Raises `UnavailableError` when the broker accepts no transactions.
        """
        try:
            self._producer.init_transactions(self._timeout)
        except KafkaException as exception:
            error = exception.args[0]
            raise UnavailableError(f"the broker accepts no transactions ({error.name()}): {error.str()}") from exception

    def send(self, letters: Iterable[Letter]) -> None:
        """Send these, as few transactions as can be.

        Raises `FencedError` when another replay has begun, and `FatalError` when the broker fails.
        """
        for batch in _batches(letters):
            self._send(batch)

    def close(self) -> None:
        """Abort what is open: it would hold back every reader until it runs out."""
        if self._open:
            with suppress(KafkaException):
                self._producer.abort_transaction(_LAST_ABORT)

    def _send(self, letters: Sequence[Letter]) -> None:
        """In one transaction; where the broker refuses one of them for good, the others in further ones."""
        error = self._transaction(letters)
        if error is None:
            self.sent += len(letters)
        elif len(letters) == 1:
            self.refused[letters[0].place] = f"the broker refuses it: {error.str()}"
        else:
            half = len(letters) // 2
            self._send(letters[:half])
            self._send(letters[half:])

    def _transaction(self, letters: Sequence[Letter]) -> KafkaError | None:
        """The error when the broker refuses one of the records for good; then nothing was sent."""
        producer = self._producer
        with self._failures():
            producer.begin_transaction()
            self._open = True
            try:
                self._produce(letters)
                producer.commit_transaction()
                error = None
            except KafkaException as exception:
                error = exception.args[0]
                if error.code() not in self._expected:
                    raise
                producer.abort_transaction()
            self._open = False
        if error is not None and error.code() == _GAP:
            self._expected = _REFUSALS
            return self._transaction(letters)
        # What was refused leaves a gap in the numbers of this producer's records, at which its next transaction fails.
        self._expected = _REFUSALS if error is None else (*_REFUSALS, _GAP)
        return error

    def _produce(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            for topic, partition, key, value, headers in sent_back(letter, self._dead_letters):
                try:
                    self._producer.produce(topic, value, key, partition, None, None, 0, headers)
                except KafkaException as exception:
                    if exception.args[0].code() not in _FAILED:
                        raise
                    return

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            if error.fatal():
                self._open = False
                raise FencedError(
                    f"another replay of {self._dead_letters} has begun, or the transaction ran out: this one ends here "
                    f"({error.str()})"
                ) from exception
            raise FatalError(
                f"the broker failed ({error.name()}: {error.str()}). Give the same command again: what was sent back "
                "is left out"
            ) from exception


def _batches(letters: Iterable[Letter]) -> Iterator[list[Letter]]:
    """What goes into one transaction each."""
    batch: list[Letter] = []
    size = 0
    for letter in letters:
        batch.append(letter)
        size += len(letter.value or b"")
        if len(batch) >= AT_ONCE or size >= BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _place_of(record: Message) -> Place:
    return Place(int(record.partition() or 0), int(record.offset() or 0))


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
