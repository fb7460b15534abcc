"""The worker that every kit runs: the real one, in memory, with a clock to move."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from datetime import UTC, datetime
from itertools import count
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from confluent_kafka import Message

from braidstream.avro import Codec, E, LocalSchemas
from braidstream.pipelines import Pipeline, Topic
from braidstream.processors import StateBroker
from braidstream.settings import WorkerSettings
from braidstream.streaming.dead_letters import PREFIX, raw_headers
from braidstream.streaming.handler import Out
from braidstream.streaming.inbox import Inbox
from braidstream.streaming.outage import Outage
from braidstream.streaming.processor import Processor
from braidstream.streaming.publisher import AtLeastOncePublisher, Publisher, TransactionalPublisher
from braidstream.streaming.replay import replayed_by
from braidstream.streaming.tracer import Tracer
from braidstream.streaming.worker import Worker
from braidstream.testing.broker import FakeBroker
from braidstream.watching.watcher import Watcher

P = ParamSpec("P")
R = TypeVar("R")

START = datetime(2026, 1, 1, tzinfo=UTC)
"""The time at which every kit begins."""

_transactional_ids = count(1)
_IDLE_TURNS = 10
"""Turns of the loop without anything read or written after which nothing more will happen."""
_STANDING = 300.0


class DeadLetter(NamedTuple):
    """A record that could not be processed, as it came, and why; `stage` as in `PoisonRecord`."""

    key: bytes | None
    value: bytes | None
    stage: str
    reason: str


class _AtOnce(Executor):
    """Runs a call where it is submitted: the fake broker knows no threads."""

    def submit(self, call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        future: Future[R] = Future()
        try:
            future.set_result(call(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class WorkerKit(Generic[E]):
    """One worker at a time. Kits of the same group on the same broker share its work."""

    tracer: Tracer | None = None
    """What the next worker is traced by."""

    def __init__(self, pipeline: Pipeline[E], settings: WorkerSettings, broker: FakeBroker | None, group: str) -> None:
        self.broker = broker if broker is not None else FakeBroker()
        """To look at topics, and to let calls fail."""
        self._pipeline = pipeline
        self._settings = settings
        self._group = group
        self._schemas = LocalSchemas(*(topic.event_type for topic in pipeline.topics))
        self._now = round(START.timestamp() * 1000)
        self.start()

    @property
    def now(self) -> datetime:
        """The kit's time."""
        return datetime.fromtimestamp(self._now / 1000, UTC)

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """Every dead letter so far."""
        found = self.broker.records(self._pipeline.dead_letters)
        return [_dead_letter(message) for message in found if replayed_by(message) is None]

    def restart(self, *, crash: bool = False) -> None:
        """Replace the worker by a new one, which knows nothing but what is in the topics."""
        self.stop(crash=crash)
        self.start()

    def stop(self, *, crash: bool = False) -> None:
        """End the worker. With `crash` it is given up by group and broker, as when its session and its open
        transaction have run out.
        """
        if crash:
            self.broker.expire_member(self.consumer)
            self.broker.expire_transaction(self.transactional_id)
        else:
            self.inbox.close()
            self.publisher.close()

    def encode(self, event: E) -> bytes:
        """The value of a subject's record."""
        return self._codec(self._pipeline.subjects).encode(event)

    def run(self) -> None:
        """Let the worker go on until nothing more happens."""
        idle = 0
        while idle < _IDLE_TURNS:
            before = self.broker.written
            taken = self.worker.step()
            idle = 0 if taken or self.broker.written != before else idle + 1

    def start(self) -> None:
        """Start a new worker."""
        self.processor = self._make_processor()
        joins = self.processor.joins
        self.consumer = self.broker.consumer(self._group, eager=joins)
        self.inbox = Inbox(
            self.consumer,
            self.processor.topics,
            eager=joins,
            hold_new=self.processor.stateful,
            patience=0,
            clock=self._seconds,
        )
        self.publisher = self._make_publisher()
        self.watcher = Watcher(
            stuck_after=_STANDING, stalled_after=_STANDING, metrics=True, now=self._milliseconds, clock=self._seconds
        )
        self.worker = Worker(
            self.inbox,
            self.processor,
            self.publisher,
            batch_size=self._settings.batch_size,
            linger=0,
            give_up_after=self._settings.broker_timeout,
            observer=self.watcher,
            outage=Outage(lambda: True, "memory", self._settings.broker_timeout, self._seconds),
            tracer=self.tracer,
            background=self._make_background(),
            clock=self._seconds,
            sleep=self.sleep,
        )
        self.worker.start()
        self.run()

    def _make_processor(self) -> Processor:
        raise NotImplementedError

    def _make_background(self) -> Executor:
        return _AtOnce()

    def _make_publisher(self) -> Publisher:
        self.transactional_id = transactional_id = f"kit-{next(_transactional_ids)}"
        if self._settings.processing_guarantee == "at_least_once":
            return AtLeastOncePublisher(
                lambda: self.broker.producer(None), self.inbox.commit, timeout=0, clock=self._seconds
            )
        return TransactionalPublisher(lambda: self.broker.producer(transactional_id), timeout=0)

    def _seconds(self) -> float:
        return self._now / 1000

    def _milliseconds(self) -> int:
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let time pass, while the worker does nothing."""
        self._now += round(seconds * 1000)

    def _state_broker(self) -> StateBroker:
        return StateBroker(self.broker.ends, self.broker.reader, self._milliseconds)

    def _codec(self, topic: Topic[Any]) -> Codec[Any]:
        return Codec(topic.event_type, self._schemas, topic.name)

    def _write(self, topic: Topic[Any], *events: Any) -> None:
        for event in events:
            self.broker.send(topic.name, key=topic.key_of(event).encode(), value=self._codec(topic).encode(event))

    def _read(self, topic: Topic[Out], skip: int = 0) -> list[Out]:
        codec: Codec[Out] = self._codec(topic)
        return [codec.decode(message.value()) for message in self.broker.records(topic.name)[skip:]]

    def _new(self, topic: Topic[Out], change: Callable[[], object]) -> list[Out]:
        """What a change brings to a topic."""
        before = len(self.broker.records(topic.name))
        change()
        self.run()
        return self._read(topic, skip=before)


def _dead_letter(message: Message) -> DeadLetter:
    headers = dict(raw_headers(message))
    stage, reason = (
        (headers[f"{PREFIX}{name}"] or b"").decode(errors="replace") for name in ("stage", "exception.message")
    )
    return DeadLetter(message.key(), message.value(), stage, reason)
