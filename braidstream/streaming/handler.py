"""Handlers: pure functions from events to outputs; and finding the events that a handler cannot process."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from typing import Any, Generic, TypeAlias, TypeVar

import structlog
from pydantic import BaseModel

from braidstream.avro import Codec, E
from braidstream.errors import BraidstreamError, FatalError, PoisonRecord, message_of, release
from braidstream.events import Events
from braidstream.pipelines import Topic

Output: TypeAlias = tuple[str, bytes, bytes]
"""A record to be written: the topic's full name, the key, and the value in the topic's wire format."""

Result: TypeAlias = Sequence[Output] | Exception
"""What came of an event: its outputs, or why there are none."""

Handler = Callable[[Events[E]], Sequence[Result]]
"""A pure function: for each event, in order, a list of outputs; or an exception, which makes it a dead letter.

When it raises, it is called again with parts of the events.
"""

Out = TypeVar("Out", bound=BaseModel)

Handle = Callable[[Events[E]], Sequence[Sequence[Out]]]
"""What an application writes, a pure function: for each event, in order, the events that it gives: none, one or many.

It may be called again for the same event: after a failure, with a part of the batch, and for repeats.
"""

_TELL_EVERY = 60.0


class Isolation(Generic[E]):
    """Calls a handler, and finds the events that make it raise, in few calls.

    A batch is handled in one call. When that raises, it is gone through in parts, each halved until the first event at
    fault is found: about a dozen calls for one in 500. How large the parts are is learnt from how many events go well
    between two that do not, so that a stream with poison in it does not fail at every batch as a whole. What the
    handler gave for a part is used, and never asked for again.

    An event is at fault when the handler raises on it alone. A handler may fail for events together and for none of
    them alone: too many of them, or two that do not go together. Then no event is at fault: they are handled in smaller
    parts, and that is logged, once a minute.

    Not an event's fault, and raised: any `BraidstreamError` but `PoisonRecord`; that there is no memory for an event
    alone; `most` events in a row that fail; anything but one result for each event. The last three are a `FatalError`.
    """

    def __init__(self, handle: Handler[E], most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._handle = handle
        self._most = most
        self._clock = clock
        self._told_at = float("-inf")
        self._gap: int | None = None
        self._good = 0
        self._log = structlog.get_logger()

    def __call__(self, events: Events[E]) -> list[Result]:
        """The result of each event, in order."""
        results: list[Result] = []
        failed_in_a_row, last_failed = 0, -1
        while (start := len(results)) < len(events):
            stop = min(len(events), start + self._at_once(len(events)))
            together = self._try(events, stop, results)
            if together is None:
                continue
            alone = self._find(events, stop, together, results)
            self._learn(len(events))
            if alone is None:
                self._tell_of_combination(together, stop - start)
                continue
            failed_in_a_row = failed_in_a_row + 1 if last_failed == len(results) - 1 else 1
            last_failed = len(results)
            results.append(alone)
            if failed_in_a_row >= self._most:
                raise FatalError(
                    f"{failed_in_a_row} events in a row failed in the handler, each by itself (DEAD_LETTER_RUN), the "
                    f"last with {_named(alone)}: stopping before they go to the dead letters. Mend the worker or the "
                    "producer, and start again: it goes on at the first record of this batch."
                ) from alone
        return results

    def _at_once(self, most: int) -> int:
        """How many events are tried together: few enough that most tries go well, since one that fails is in vain.

        The more have gone well in a row, the more are tried.
        """
        return most if self._gap is None else max(1, self._gap // 4, self._good // 2)

    def _learn(self, batch: int) -> None:
        """An event has failed, or some together: note how many went well before that, but no more than a batch has."""
        good = min(self._good, batch)
        self._gap = good if self._gap is None else (self._gap + good) // 2
        self._good = 0

    def _try(self, events: Events[E], stop: int, results: list[Result]) -> Exception | None:
        """Handle the events from the first without a result to before `stop`; the error when that fails."""
        start = len(results)
        count = stop - start
        try:
            found = self._handle(events if count == len(events) else events[start:stop])
        except Exception as error:
            if isinstance(error, BraidstreamError) and not isinstance(error, PoisonRecord):
                raise
            if count > 1:
                release(error)
            elif isinstance(error, MemoryError):
                raise FatalError(f"there is no memory left to process event {events.keys[start]!r:.80}") from error
            return error
        results += _one_for_each(count, found)
        self._good += count
        return None

    def _find(self, events: Events[E], stop: int, error: Exception, results: list[Result]) -> Exception | None:
        """Handle the events to before `stop`, which fail together, up to the first that fails alone; its error."""
        of_the_rest: Exception | None = error
        while stop - len(results) > 1:
            middle = (len(results) + stop) // 2
            of_the_rest = self._try(events, middle, results)
            if of_the_rest is not None:
                stop = middle
        return of_the_rest if of_the_rest is not None else self._try(events, stop, results)

    def _tell_of_combination(self, error: Exception, count: int) -> None:
        if self._clock() - self._told_at < _TELL_EVERY:
            return
        self._told_at = self._clock()
        self._log.warning(
            "the handler failed for events together that it takes in smaller parts: none is at fault",
            events=count,
            reason=_named(error),
        )


def _one_for_each(count: int, found: object) -> Sequence[Any]:
    """What a handler has returned for so many events; raises `FatalError` when nobody knows which is whose."""
    if not isinstance(found, Sequence) or len(found) != count:
        what = f"{len(found)} results" if isinstance(found, Sequence) else type(found).__name__
        raise FatalError(f"the handler returned {what} for {count} events: there has to be one for each, in order")
    return found


def writing(handle: Handle[E, Out], topic: Topic[Out], name: str, codec: Codec[Out]) -> Handler[E]:
    """The handler whose results are records of a topic, by its full name.

    Raises `FatalError` when the results are no lists, one for each event, of the topic's events. An event that cannot
    be encoded is the fault of the event that it was made from.
    """
    model = topic.event_type.model

    def record(key: str, event: object) -> Output:
        if not isinstance(event, model):
            raise FatalError(
                f"the handler returned {type(event).__name__} for event {key!r:.80}: {name} takes {model.__name__}"
            )
        return name, topic.key_of(event).encode(), codec.encode(event)

    def records(key: str, events: object) -> Sequence[Output]:
        if not isinstance(events, Sequence):
            raise FatalError(
                f"the handler returned {type(events).__name__} for event {key!r:.80}: for each event it has to return "
                f"a list of {model.__name__}, which may be empty"
            )
        return [record(key, event) for event in events]

    def handler(events: Events[E]) -> Sequence[Result]:
        return list(map(records, events.keys, _one_for_each(len(events), handle(events))))

    return handler


def handle_apart(handle: Handler[E], events: Events[E], apart: Collection[int]) -> list[Result]:
    """The results of all events, in order: those with these indexes are handled each by itself, the others together.

    So those that are likely to fail are not too many in a row for an `Isolation`.
    """
    results: list[Result] = []
    for is_apart, rows in groupby(range(len(events)), apart.__contains__):
        together = list(rows)
        parts = [[row] for row in together] if is_apart else [together]
        for part in parts:
            results += handle(events[part[0] : part[-1] + 1])
    return results


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {message_of(error)}"
