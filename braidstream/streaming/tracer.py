"""What the loop tells whoever traces it: the contract, without any library for traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeAlias

from confluent_kafka import KafkaError, Message

from braidstream.errors import RetriableError
from braidstream.streaming.ports import Headers
from braidstream.streaming.processor import Work
from braidstream.streaming.traceparent import HEADER, new_traceparents


class Tracer(Protocol):
    """Hears of each batch in the loop's own thread, which waits for it."""

    def publishing(self, work: Work, seconds: float) -> None:
        """What a batch gave, `seconds` after it was taken, is about to be published.

        May give the records of the work other `traceparent` headers: those that readers are to go on from.
        """
        ...

    def committed(self) -> None:
        """It is in the log."""
        ...

    def went_back(self, error: RetriableError) -> None:
        """What was last about to be published is undone, unless it is in the log."""
        ...


class Untraced:
    """A tracer that does nothing."""

    def publishing(self, work: Work, seconds: float) -> None:
        """Headers stay as they are."""

    def committed(self) -> None:
        """Nothing was begun."""

    def went_back(self, error: RetriableError) -> None:
        """Nothing was begun."""


OnDelivery: TypeAlias = Callable[[KafkaError | None, Message], None]


class SendTracer(Protocol):
    """Gives the events of a writer their traces; `hears_of_successes` says that it has to."""

    hears_of_successes: bool

    def sending(
        self, topic: str, keys: Sequence[bytes], on_delivery: OnDelivery
    ) -> Iterator[tuple[Headers, OnDelivery]]:
        """For each event, which is sent when it is asked for: its headers, and what is to hear of its delivery.

        That in turn tells `on_delivery`.
        """
        ...


class NewTraces:
    """Begins a trace with each event, by its header alone, which asks whoever goes on to record it."""

    hears_of_successes = False

    def sending(
        self, topic: str, keys: Sequence[bytes], on_delivery: OnDelivery
    ) -> Iterator[tuple[Headers, OnDelivery]]:
        """See `SendTracer`."""
        for traceparent in new_traceparents(len(keys)):
            yield [(HEADER, traceparent)], on_delivery
