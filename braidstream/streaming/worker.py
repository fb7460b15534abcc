"""The worker: one loop for scoring and for decisions."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import structlog
from confluent_kafka import KafkaException, Message, TopicPartition

from braidstream.errors import RetriableError, UnavailableError
from braidstream.streaming.inbox import Batch, Inbox
from braidstream.streaming.measures import by_topic, sampled, timed
from braidstream.streaming.observer import Observer, Turn, View
from braidstream.streaming.outage import Outage
from braidstream.streaming.processor import Processor, Rest, Work
from braidstream.streaming.publisher import OutcomeUnknown, Publisher
from braidstream.streaming.tracer import Tracer, Untraced

LOG_EVERY = 10.0
IDLE_WAIT = 0.25
MAX_BACKOFF = 5.0
BACKLOG = 0.25
"""The share of the batch size from which a batch says that there is a backlog."""
VIEW_EVERY = 1.0


class _Publication(NamedTuple):
    """A batch that is being published in the background."""

    work: Work
    published: Future[None]
    offsets: list[TopicPartition]


class Worker:
    """Takes batches, processes them, publishes what they gave.

    `linger` is how long, in seconds, a batch waits for the records right behind its first: small transactions cost
    more than they carry. `give_up_after` bounds, in seconds, how long the same failure is retried. `background` runs
    one call at a time.
    """

    def __init__(
        self,
        inbox: Inbox,
        processor: Processor,
        publisher: Publisher,
        *,
        batch_size: int,
        linger: float,
        give_up_after: float,
        observer: Observer,
        outage: Outage,
        tracer: Tracer | None = None,
        background: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inbox = inbox
        self._processor = processor
        self._publisher = publisher
        self._batch_size = batch_size
        self._linger = linger
        self._give_up_after = give_up_after
        self._observer = observer
        self._outage = outage
        self._tracer = tracer or Untraced()
        self._background = background or ThreadPoolExecutor(1, "publishing")
        self._publication: _Publication | None = None
        self._failure: Exception | None = None
        self._clock = clock
        self._sleep = sleep
        self._stopping = False
        self._failing_since: float | None = None
        self._failed_at = float("-inf")
        self._failures = 0
        self._counts: Counter[str] = Counter()
        self._logged_at = clock()
        self._viewed_at = float("-inf")
        self._drained = False
        self._log = structlog.get_logger()

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; what is in hand then is finished."""
        with self._signals():
            self.start()
            self._log.info("started", reads=self._processor.topics)
            try:
                while not self._stopping:
                    self.step()
                self._finish()
                self._report()
            finally:
                self._background.shutdown()
                self._inbox.close()
                self._publisher.close()
        self._log.info("stopped, with nothing in hand")

    def start(self) -> None:
        """Make ready and join the group; `run` does so first."""
        self._publisher.start()
        self._inbox.subscribe(self._drain)

    def _finish(self) -> None:
        try:
            self._settle()
            self._publisher.commit_rest()
        except RetriableError as error:
            self._log.warning("what was in hand is left to be read again", reason=str(error))

    def stop(self) -> None:
        """End `run` after the batch in hand."""
        self._stopping = True
        self._inbox.leave_soon()

    def step(self) -> int:
        """One turn of the loop; the number of records taken."""
        try:
            records = self._turn()
        except (RetriableError, KafkaException) as error:
            self._go_back(_retriable(error))
            return 0
        if self._clock() - self._failed_at > MAX_BACKOFF:
            # Nothing has failed since: what did may have gone to another worker.
            self._note_success()
        self._outage.check(records)
        self._tell(failing=None)
        return records

    def _turn(self) -> int:
        if self._clock() - self._logged_at >= LOG_EVERY:
            self._report()
        batch = self._inbox.take(self._batch_size, min(IDLE_WAIT, self._processor.patience()), self._linger)
        taken_at = self._clock()
        try:
            rest = self._prepare(batch.records)
        finally:
            self._processor.rebalanced(batch.revoked, batch.assigned)
        self._publish(rest(self._inbox.positions), batch, taken_at)
        if not batch.records:
            self._publisher.commit_rest()
        self._inbox.pause(self._processor.held())
        self._show(len(batch.records))
        return len(batch.records)

    def _prepare(self, records: Sequence[Message]) -> Rest:
        """Prepare a batch while the one before is still being published, and wait for that."""
        try:
            return self._processor.prepare(records)
        finally:
            self._settle()

    def _publish(self, work: Work, batch: Batch, taken_at: float) -> None:
        """Publish what a batch gave; on a backlog wait for it in the background, and prepare the next batch meanwhile.

        Without a backlog nothing would be gained by reading ahead, and what comes meanwhile would wait for longer.
        """
        if not work.partitions:
            self._committed(work)
            return
        offsets = self._inbox.next_offsets(work.partitions)
        began = self._clock()
        self._tracer.publishing(work, began - taken_at)
        finish = self._publisher.publish(work.records, work.states, offsets, batch.group)
        finish = timed(finish, work, began, self._clock)
        work.timestamps, work.produced = sampled(batch.records), by_topic(work)
        if len(batch.records) < BACKLOG * self._batch_size:
            finish()
            self._published(work, offsets)
        else:
            self._publication = _Publication(work, self._background.submit(finish), offsets)

    def _published(self, work: Work, offsets: list[TopicPartition]) -> None:
        if self._publisher.commit(offsets):
            self._note_success()
        self._committed(work)
        self._observer.committed(work)
        self._tracer.committed()

    def _committed(self, work: Work) -> None:
        self._processor.commit()
        self._counts += work.counts

    def _drain(self) -> None:
        """Finish what is being published, and commit, in a callback that must not raise: the next turn does."""
        try:
            self._settle()
            self._publisher.commit_rest()
        except Exception as error:
            self._failure = error

    def _settle(self) -> None:
        """Finish what is being published; raises `RetriableError` when it, or what came before it, failed."""
        publication, self._publication = self._publication, None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if publication is not None:
            publication.published.result()
            self._published(publication.work, publication.offsets)

    def _go_back(self, error: RetriableError) -> None:
        """Undo the batch in hand, so that it is read again; raises `UnavailableError` when failing has lasted too long.

        Nothing is taken before the committed offsets are reached again: what was in hand would be skipped.
        """
        try:
            self._settle()
        except RetriableError as of_batch_before:
            error = of_batch_before
        self._observer.went_back(error)
        self._tracer.went_back(error)
        self._processor.rollback()
        while not self._stopping:
            self._back_off(error)
            try:
                self._publisher.renew()
                self._inbox.go_back()
                break
            except RetriableError as again:
                error = OutcomeUnknown(str(again)) if isinstance(error, OutcomeUnknown) else again
        if isinstance(error, OutcomeUnknown):
            owned = list(self._inbox.owned)
            self._processor.rebalanced(owned, owned)
        self._inbox.pause(self._processor.held())
        self._failed_at = self._clock()

    def _back_off(self, error: RetriableError) -> None:
        now = self._clock()
        if self._failing_since is None:
            self._failing_since, self._failures = now, 0
        if now - self._failing_since > self._give_up_after:
            raise UnavailableError(f"failing for over {self._give_up_after:g} s (BROKER_TIMEOUT): {error}") from error
        wait = min(MAX_BACKOFF, 0.05 * 2**self._failures)
        self._failures += 1
        self._log.warning("going back to the committed offsets", reason=str(error), after_seconds=wait)
        self._tell(failing=str(error))
        self._sleep(wait)

    def _note_success(self) -> None:
        if self._failing_since is not None:
            seconds = round(self._clock() - self._failing_since, 1)
            self._log.info("works again", failures=self._failures, after_seconds=seconds)
            self._failing_since = None

    def _tell(self, failing: str | None) -> None:
        self._observer.turned(
            Turn(self._inbox.assigned, len(self._inbox.owned), self._processor.waiting_for(), failing)
        )

    def _show(self, taken: int) -> None:
        self._drained |= taken < self._batch_size
        if self._clock() - self._viewed_at < VIEW_EVERY:
            return
        self._viewed_at = self._clock()
        readings, rebalances = self._inbox.readings(), dict(self._inbox.rebalances)
        self._observer.viewed(View(readings, self._processor.gauges(), rebalances, self._drained))
        self._drained = False

    def _report(self) -> None:
        seconds = max(self._clock() - self._logged_at, 1e-9)
        self._logged_at = self._clock()
        rates = {f"{name}_per_s": round(self._counts[name] / seconds, 1) for name in ("in", "out")}
        others = {name: count for name, count in self._counts.items() if name not in ("in", "out")}
        self._log.info(
            "progress",
            **rates,
            lag=sum(reading.lag for reading in self._inbox.readings().values()),
            dead_letters=others.pop("dead_letters", 0),
            **others,
            **self._processor.gauges(),
        )
        self._counts.clear()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(*_: object) -> None:
            # No logging here: the signal may have come in the middle of a line, which holds the logger's lock.
            self.stop()

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _retriable(error: RetriableError | KafkaException) -> RetriableError:
    if isinstance(error, RetriableError):
        return error
    retriable = RetriableError(error.args[0].str())
    retriable.__cause__ = error
    return retriable
