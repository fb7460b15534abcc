"""Runs a part of the pipeline, which stops at a point: `python -m tests.faults.interrupted PART POINT TURN SIGNAL`.

PART is as in `python -m PART`, and it is that program but for its Kafka clients. When it passes the point for the
TURN-th time, the process sends itself SIGNAL (KILL or STOP); after a SIGCONT it goes on there.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, cast, get_args

import confluent_kafka
from confluent_kafka import Message

from braidstream.streaming import clients

Point = Literal["producing", "before offsets", "before commit", "after commit", "flushed", "restoring"]
"""In the middle of a batch's records; with all of them in the log; with the transaction's offsets too; right behind the
commit; with all records acknowledged (at least once); in the middle of the changelog."""

_AT_ONCE = 50
"""Records of the changelog that are read in a turn."""


class Interruption:
    """Sends the signal when `point` is passed for the last of so many turns."""

    def __init__(self, point: Point, turns: int, number: signal.Signals) -> None:
        self._point = point
        self._turns = turns
        self._signal = number

    def pass_by(self, point: Point, before: Callable[[], object] = lambda: None) -> None:
        """This point is reached; `before` is done before the signal."""
        if point == self._point:
            self._turns -= 1
            if self._turns == 0:
                before()
                os.kill(os.getpid(), self._signal)


class InterruptedProducer(confluent_kafka.Producer):
    """A producer on whose way are the points; what was produced before them is in the log."""

    def __init__(self, interruption: Interruption, config: Mapping[str, Any], **more: Any) -> None:
        super().__init__(dict(config), **more)
        self._interruption = interruption

    def produce(self, *arguments: Any, **more: Any) -> None:
        """Point: producing."""
        self._interruption.pass_by("producing", super().flush)
        super().produce(*arguments, **more)

    def send_offsets_to_transaction(self, *arguments: Any) -> None:
        """Point: before offsets."""
        self._interruption.pass_by("before offsets", super().flush)
        super().send_offsets_to_transaction(*arguments)

    def commit_transaction(self, *arguments: Any) -> None:
        """Points: before commit, after commit."""
        self._interruption.pass_by("before commit", super().flush)
        super().commit_transaction(*arguments)
        self._interruption.pass_by("after commit")

    def flush(self, *arguments: Any) -> int:
        """Point: flushed."""
        left: int = super().flush(*arguments)
        self._interruption.pass_by("flushed")
        return left


class InterruptedReader(confluent_kafka.Consumer):
    """A reader of the changelog on whose way is a point; it takes small steps, so that there is a middle."""

    def __init__(self, interruption: Interruption, config: Mapping[str, Any], **more: Any) -> None:
        super().__init__(dict(config), **more)
        self._interruption = interruption

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Message]:
        """Point: restoring."""
        records: list[Message] = super().consume(min(num_messages, _AT_ONCE), timeout)
        if records:
            self._interruption.pass_by("restoring")
        return records


def main(part: str, point: str, turns: str, name: str) -> None:
    """Run the part."""
    if point not in get_args(Point):
        raise SystemExit(f"{point} is none of {', '.join(get_args(Point))}")
    interruption = Interruption(cast("Point", point), int(turns), signal.Signals[f"SIG{name}"])
    make_client = clients.make_client

    def make_interrupted(kind: Callable[..., Any], config: Mapping[str, Any]) -> Any:
        if kind is confluent_kafka.Producer:
            return make_client(partial(InterruptedProducer, interruption), config)
        if point == "restoring" and str(config["client.id"]).endswith("-restore"):
            return make_client(partial(InterruptedReader, interruption), config)
        return make_client(kind, config)

    clients.make_client = make_interrupted
    sys.argv = [part]
    runpy.run_module(part, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
