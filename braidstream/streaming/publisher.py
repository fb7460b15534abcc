"""The producing side of a worker: results and offsets in one transaction, or one after the other.

What is done about each error follows the table in librdkafka's documentation of the transactional producer
(https://docs.confluent.io/platform/current/clients/librdkafka/html/rdkafka_8h.html, "Transactional producer API").
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, Protocol, TypeAlias

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from braidstream.errors import FatalError, FencedError, RetriableError, UnavailableError
from braidstream.streaming.limited_calls import LimitedCalls
from braidstream.streaming.ports import Headers, Partition, Producer
from braidstream.streaming.sizes import too_large

_FULL_QUEUE_WAIT = 0.1
_LAST_ABORT = 5.0

COMMIT_EVERY = 0.1
"""Seconds. A worker without transactions that is killed leaves so much to be done again; a commit takes as long as the
rest of a small batch."""

OFFSETS_TIMEOUT = 10.0
"""Seconds, as long as a transaction may last: see `LimitedCalls`."""


OutRecord: TypeAlias = tuple[str, int, bytes | None, bytes | None, Headers]
"""A record to be produced: topic, partition, key, value, headers."""


Finish: TypeAlias = Callable[[], None]
"""Waits until what was handed over is in the log."""


class OutcomeUnknown(RetriableError):
    """What was published may or may not have been committed: what is held in memory must be read again."""


class Publisher(Protocol):
    """Publishes what a batch gave, and commits its offsets."""

    def start(self) -> None:
        """Make ready; raises `UnavailableError` when the broker does not answer in time."""
        ...

    def publish(
        self, records: Sequence[OutRecord], states: Sequence[OutRecord], offsets: list[TopicPartition], group: Any
    ) -> Finish:
        """Hand the records to the client; call what is returned, from any thread, to wait until they are in the log.

        The states, of a changelog, say what was published: none is in the log without all of the records. With
        transactions the offsets are committed too, all or nothing. Both calls raise `RetriableError` when nothing was
        committed, `OutcomeUnknown` when that cannot be told, `FatalError` when the process must end.
        """
        ...

    def commit(self, offsets: list[TopicPartition]) -> bool:
        """Commit the offsets of what was published, where that does not; to be called in the consumer's thread.

        False says that it is put off for a moment. A commit from another thread has been seen to wait for ever while
        the consumer was in a rebalance's callback. Raises `OutcomeUnknown`: the records are in the log.
        """
        ...

    def commit_rest(self) -> None:
        """Commit now what `commit` has put off; else as `commit`."""
        ...

    def renew(self) -> None:
        """Make ready again after a failure: ends what an unknown outcome left open, before offsets are read."""
        ...

    def close(self) -> None:
        """Let go; nothing is waiting to be sent between two calls of `publish`."""
        ...


def _error(exception: KafkaException) -> KafkaError:
    error: KafkaError = exception.args[0]
    return error


def _produce(
    producer: Producer, records: Sequence[OutRecord], on_failure: Callable[[Any, Message], None] | None = None
) -> None:
    produce = producer.produce
    for topic, partition, key, value, headers in records:
        while True:
            try:
                # By position: with names a call takes a third longer. The callback has two, the second is not used.
                produce(topic, value, key, partition, on_failure, None, 0, headers or None)
            except BufferError:
                producer.poll(_FULL_QUEUE_WAIT)
            except KafkaException as exception:
                if _error(exception).code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    raise too_large([(topic, partition, key, value, headers)], _error(exception).str()) from exception
                raise
            else:
                break


def _cause(error: KafkaError, send_offsets: Callable[[], None]) -> KafkaError:
    """Why a transaction failed: `produce` only says that it has, the calls of the transaction say why."""
    if error.code() in (KafkaError._STATE, KafkaError._FATAL):
        try:
            send_offsets()
        except KafkaException as exception:
            return _error(exception)
    return error


class TransactionalPublisher:
    """Exactly once: records and offsets are committed in one transaction.

    A new producer is made with `make_producer` when the old one is of no more use. `timeout` in seconds bounds how
    long the broker may take to accept a producer, and, if it is longer than `OFFSETS_TIMEOUT`, to commit or abort.
    """

    def __init__(self, make_producer: Callable[[], Producer], timeout: float) -> None:
        self._make_producer = make_producer
        self._timeout = timeout
        self._producer: Producer | None = None
        self._fenced = False
        self._open = False
        self._in_hand: Sequence[Sequence[OutRecord]] = ()
        self._limited_calls = LimitedCalls()
        self._log = structlog.get_logger()

    def start(self) -> None:
        """Register the transactional id: this ends what a predecessor left open."""
        producer = self._make_producer()
        try:
            producer.init_transactions(self._timeout)
        except KafkaException as exception:
            error = _error(exception)
            raise UnavailableError(f"the broker accepts no transactions ({error.name()}): {error.str()}") from exception
        self._producer = producer
        self._open = False

    def publish(
        self, records: Sequence[OutRecord], states: Sequence[OutRecord], offsets: list[TopicPartition], group: Any
    ) -> Finish:
        """One transaction. The offsets must not be empty: with none the broker checks no membership."""
        if not offsets:
            raise ValueError("a transaction needs offsets, or the broker does not fence it")
        producer = self._producer
        assert producer is not None, "start or renew comes first"
        self._open = True
        self._in_hand = (records, states)

        def send_offsets() -> None:
            call = partial(producer.send_offsets_to_transaction, offsets, group, OFFSETS_TIMEOUT)
            self._limited("sending offsets", call, OFFSETS_TIMEOUT)

        try:
            self._attempt(producer.begin_transaction)
            _produce(producer, records)
            _produce(producer, states)
            producer.poll(0)
        except KafkaException as exception:
            self._recover(producer, _cause(_error(exception), send_offsets))
        return partial(self._finish, producer, send_offsets)

    def _finish(self, producer: Producer, send_offsets: Callable[[], None]) -> None:
        try:
            self._attempt(send_offsets)
        except KafkaException as exception:
            self._recover(producer, _cause(_error(exception), send_offsets))
        try:
            self._limited("committing", producer.commit_transaction, self._end_timeout)
        except KafkaException as exception:
            if _error(exception).txn_requires_abort() or _error(exception).fatal():
                self._recover(producer, _error(exception))
            # A late EndTxn could end a later transaction of this producer.
            self._producer = None
            raise OutcomeUnknown(f"the commit did not come back: {_error(exception).str()}") from exception
        self._open = False
        self._in_hand = ()
        self._fenced = False

    def commit(self, offsets: list[TopicPartition]) -> bool:
        """Nothing: the transaction has committed them."""
        return True

    def commit_rest(self) -> None:
        """Nothing is put off."""

    def renew(self) -> None:
        """A new producer with the same transactional id, if the old one was thrown away."""
        if self._producer is None:
            self.start()

    def close(self) -> None:
        """Drop the producer, and abort what is open: it would hold back every reader until it runs out.

        The client's own close would wait for the broker without a limit.
        """
        if self._producer is not None and self._open:
            try:
                self._limited("aborting", partial(self._producer.abort_transaction, _LAST_ABORT), 2 * _LAST_ABORT)
            except KafkaException as exception:
                self._log.warning("a transaction is left to run out", detail=_error(exception).str())
        self._producer = None

    @property
    def _end_timeout(self) -> float:
        return max(self._timeout, OFFSETS_TIMEOUT)

    def _limited(self, what: str, call: Callable[[], None], limit: float) -> None:
        """Make a call that may never return; `_TIMED_OUT` is raised when it does not."""
        try:
            self._limited_calls.make(call, limit)
        except TimeoutError as error:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{what}: {error}")) from error

    def _attempt(self, call: Callable[[], None], tries: int = 10) -> None:
        for left in reversed(range(tries)):
            try:
                call()
                break
            except KafkaException as exception:
                timed_out = _error(exception).code() == KafkaError._TIMED_OUT
                if not _error(exception).retriable() or timed_out or not left:
                    raise

    def _recover(self, producer: Producer, error: KafkaError) -> None:
        cause = KafkaException(error)
        if error.fatal():
            self._producer = None
            if self._fenced:
                raise FencedError(f"fenced twice in a row, another worker has this transactional id: {error.str()}")
            self._fenced = True
            raise OutcomeUnknown(f"the producer was fenced or its transaction ran out: {error.str()}") from cause
        if error.code() == KafkaError._TIMED_OUT:
            self._producer = None
            raise OutcomeUnknown(f"the broker did not answer in time: {error.str()}") from cause
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self._abort(producer)
            raise too_large(chain.from_iterable(self._in_hand), error.str())
        if not (error.txn_requires_abort() or error.retriable()):
            raise FatalError(f"the transaction on {self._topics()} failed ({error.name()}): {error.str()}")
        self._abort(producer)
        raise RetriableError(
            f"the transaction on {self._topics()} was aborted ({error.name()}): {error.str()}"
        ) from cause

    def _topics(self) -> str:
        return ", ".join(sorted({topic for topic, *_ in chain.from_iterable(self._in_hand)})) or "offsets alone"

    def _abort(self, producer: Producer) -> None:
        try:
            self._limited("aborting", producer.abort_transaction, self._end_timeout)
        except KafkaException as exception:
            self._producer = None
            raise OutcomeUnknown(f"the abort did not come back: {_error(exception).str()}") from exception
        self._open = False


class AtLeastOncePublisher:
    """At least once: records first, and their offsets when every one is acknowledged, every `COMMIT_EVERY` seconds.

    `commit` commits offsets and waits; `timeout` in seconds bounds how long the acknowledgements may take.
    """

    def __init__(
        self,
        make_producer: Callable[[], Producer],
        commit: Callable[[list[TopicPartition]], None],
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_producer = make_producer
        self._commit = commit
        self._timeout = timeout
        self._clock = clock
        self._rest: dict[Partition, TopicPartition] = {}
        self._committed_at = float("-inf")
        self._producer: Producer | None = None

    def start(self) -> None:
        """Make the producer; it connects by itself."""
        self._producer = self._make_producer()

    def publish(
        self, records: Sequence[OutRecord], states: Sequence[OutRecord], offsets: list[TopicPartition], group: Any
    ) -> Finish:
        """Produce, and then wait for every acknowledgement; offsets and the group's metadata play no part.

        States are produced when the records are acknowledged: one that says "decided" without the decision in the log
        would be believed after a crash, and the decision never made.
        """
        producer = self._producer
        assert producer is not None, "start or renew comes first"
        failed: list[tuple[KafkaError, str]] = []

        def on_failure(error: KafkaError, message: Message) -> None:
            failed.append((error, f"{message.topic()} [{message.partition()}], key {message.key()!r:.80}"))

        with self._dropped_on_error(producer):
            _produce(producer, records, on_failure)
        finish = partial(self._finish, producer, (records, states), failed)
        if states and records:
            finish()
        with self._dropped_on_error(producer):
            _produce(producer, states, on_failure)
        return finish

    def _finish(
        self, producer: Producer, in_hand: Sequence[Sequence[OutRecord]], failed: list[tuple[KafkaError, str]]
    ) -> None:
        with self._dropped_on_error(producer):
            left = producer.flush(self._timeout)
        if left:
            self._drop(producer)
            raise OutcomeUnknown(f"{left} records were not acknowledged within {self._timeout:g} s")
        for error, what in failed:
            if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                raise too_large(chain.from_iterable(in_hand), what)
        if failed:
            error, what = failed[0]
            raise OutcomeUnknown(
                f"{len(failed)} records were not acknowledged, first {what}: {error.str()}"
            ) from KafkaException(error)

    def commit(self, offsets: list[TopicPartition]) -> bool:
        """Commit the offsets and wait for it, unless that was done just now."""
        self._rest |= {Partition(offset.topic, offset.partition): offset for offset in offsets}
        if self._clock() - self._committed_at < COMMIT_EVERY:
            return False
        self.commit_rest()
        return True

    def commit_rest(self) -> None:
        """Commit what was put off and wait for it."""
        if not self._rest:
            return
        rest, self._rest = self._rest, {}
        self._committed_at = self._clock()
        try:
            self._commit(list(rest.values()))
        except RetriableError as error:
            # The records are in the log all the same, and with them what is to be remembered.
            raise OutcomeUnknown(str(error)) from error

    def renew(self) -> None:
        """A new producer, if the old one was thrown away; what was put off is read again."""
        self._rest.clear()
        if self._producer is None:
            self.start()

    def close(self) -> None:
        """Drop the producer; every record was flushed by what `publish` returned."""
        self._producer = None

    def _drop(self, producer: Producer) -> None:
        """What it still holds must not come late: behind newer records of the producer after it."""
        producer.purge()
        self._producer = None

    @contextmanager
    def _dropped_on_error(self, producer: Producer) -> Iterator[None]:
        try:
            yield
        except KafkaException as exception:
            self._drop(producer)
            raise OutcomeUnknown(f"not produced: {_error(exception).str()}") from exception
