"""A replay from its rides to the acknowledgements, and what became of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from braidstream import EventWriter, FatalError
from producer.pace import Pace
from producer.progress import shown_replay
from producer.replay import RecordWriter, replay
from producer.resume import Noting, take_up, write_position
from producer.rounds import Rounds
from producer.stop import stop_on_signals
from producer.trips import encoded
from schemas.ride_started import RideStarted


@dataclass(frozen=True)
class Outcome:
    """What became of a replay of `total` rides (None: without an end), of which `before` were acknowledged earlier."""

    total: int | None
    before: int
    sent: int
    acknowledged: int
    seconds: float
    stopped_by: signal.Signals | None

    @property
    def left(self) -> int | None:
        """How many rides were not sent; None when there is no end of them."""
        return None if self.total is None else self.total - self.before - self.sent

    @property
    def summary(self) -> str:
        """The counts in words."""
        counts = f"{counted(self.sent, 'ride')} sent, {self.acknowledged:,} acknowledged"
        return counts if self.stopped_by is None else f"Stopped by {self.stopped_by.name}: {counts}"

    @property
    def timing(self) -> str:
        """The time and the speed in words."""
        return f"{self.seconds:,.1f} s, {self.sent / self.seconds if self.seconds else 0:,.0f} rides a second"


def counted(count: int, noun: str) -> str:
    """A number and what of."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def send(rounds: Rounds, writer: EventWriter[RideStarted], pace: Callable[[int], Pace], resume: Path | None) -> Outcome:
    """Send these rides at this pace, which is given from which ride on, until all are sent or a signal ends it.

    With `resume`, from where that file says on. Raises `FatalError`, and `SettingsError` when the file is of another
    replay.
    """
    first = 0
    sink: RecordWriter = writer
    if resume is not None:
        rounds, position = take_up(resume, rounds, writer.identity())
        first = position.acknowledged
        sink = Noting(writer, lambda sent: write_position(resume, position.at(first + sent)))
    frames = rounds.frames(first)
    batches = (batch for frame in frames for batch in encoded(frame, writer.encode))
    left = None if rounds.total is None else max(rounds.total - first, 0)
    # The replay itself waits for what it sent; leaving the writer's own context would wait again after a failure.
    with shown_replay(left) as shown, stop_on_signals() as stop:
        if first and left != 0:
            shown.say(f"Going on after {first:,} rides, as {resume} says")
        start = time.monotonic()
        try:
            sent = replay(batches, sink, pace=pace(first), stop=stop, progress=lambda sent: shown(sent, left))
        except FatalError as error:
            go_on = f"; the same command goes on from where {resume} says" if resume is not None else ""
            raise FatalError(f"{error} ({writer.acknowledged:,} rides had been acknowledged{go_on})") from error
        return Outcome(rounds.total, first, sent, writer.acknowledged, time.monotonic() - start, stop.received)
