"""Rides sent at a steady rate while something else happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from braidstream.settings import Settings
from braidstream.writer import open_writer
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted


class Traffic:
    """Sends the same rides to several pipelines; `sent` are the ids of all rides that were sent so far."""

    def __init__(self, rides: Iterator[RideStarted], pipelines: Sequence[Settings]) -> None:
        self._rides = rides
        self._pipelines = pipelines
        self.sent: list[str] = []

    @contextmanager
    def flowing(self, per_second: float = 50.0) -> Iterator[None]:
        """Send rides until the context is left; then every one of them is acknowledged."""
        stop = threading.Event()
        with ThreadPoolExecutor(1) as executor:
            sending = executor.submit(self._send, lambda: stop.wait(1 / per_second))
            try:
                yield
            finally:
                stop.set()
            sending.result()

    def send(self, count: int, per_second: float = 1000.0) -> list[str]:
        """Send this many rides; their ids, when every one is acknowledged."""
        before = len(self.sent)

        def enough() -> bool:
            time.sleep(1 / per_second)
            return len(self.sent) - before >= count

        self._send(enough)
        return self.sent[before:]

    def _send(self, enough: Callable[[], bool]) -> None:
        with ExitStack() as stack:
            writers = [stack.enter_context(open_writer(RIDES.subjects, settings)) for settings in self._pipelines]
            while not enough():
                ride = next(self._rides)
                self.sent.append(ride.ride_id)
                for writer in writers:
                    writer.send(ride)
