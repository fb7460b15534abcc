"""What a run is fed with: rides of the producer's command line, and odd input beside them."""

from __future__ import annotations

import random
import subprocess
from collections import deque
from pathlib import Path

from braidstream.writer import open_writer
from producer.sample import write_sample
from producer.trips import read_trips, rides
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.integration.ride_pipeline import RidePipeline

_SECONDS_A_FILE = 4
_ODD = 200
"""Rides of each helping of odd input."""
_BAD = 5


class Feeder:
    """Sends one file of rides after the other, at `rate` rides a second. To be looked after by `look`, often.

    `acknowledged` are the rides of which the broker has told, to the producer or to this process.
    """

    def __init__(self, pipeline: RidePipeline, folder: Path, rate: float, rng: random.Random) -> None:
        self._pipeline = pipeline
        self._folder = folder
        self._rate = rate
        self._rng = rng
        self._files = 0
        self._file: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._writer = open_writer(RIDES.subjects, pipeline.settings)
        self._handed_over: list[str] = []
        self._known: deque[RideStarted] = deque(maxlen=5 * _ODD)
        self.acknowledged: set[str] = set()
        self.failures = 0
        """How often the producer ended without having sent all of its rides."""

    def look(self) -> None:
        """Go on with the next file when one is sent, and with the same file when the producer has failed."""
        self._writer.poll(0)
        if self._process is not None and (code := self._process.poll()) is not None:
            if code == 0:
                self._file_is_sent()
            else:
                self.failures += 1
            self._process = None
        if self._process is None:
            if self._file is None:
                self._file = self._write(round(self._rate * _SECONDS_A_FILE))
            self._process = self._pipeline.start("producer", "--rate", f"{self._rate:g}", str(self._file))

    def kill_producer(self) -> None:
        """SIGKILL; the file it was at is sent again from its beginning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def send_again(self) -> None:
        """Rides that were sent a while ago, in another order."""
        count = min(_ODD, len(self._known))
        self._send(self._rng.sample(list(self._known), count))

    def send_late(self) -> None:
        """New rides, long after they have started, out of their order."""
        late = self._rides(self._write(_ODD))
        self._rng.shuffle(late)
        self._send(late)

    def send_bad(self) -> None:
        """Records that are no rides, between others."""
        for ride in self._rides(self._write(_BAD)):
            self._writer.send_many([b"bad"], [self._rng.randbytes(self._rng.randint(0, 40))])
            self._send([ride])

    def finish(self) -> None:
        """End with the file in hand, sent whole."""
        while self._file is not None:
            if self._process is None:
                self.look()
            assert self._process is not None
            if self._process.wait() == 0:
                self._file_is_sent()
            self._process = None
        self._writer.flush()
        self.acknowledged.update(self._handed_over)

    def _file_is_sent(self) -> None:
        assert self._file is not None
        sent = self._rides(self._file)
        self.acknowledged.update(ride.ride_id for ride in sent)
        self._known.extend(sent)
        self._file = None

    def _send(self, events: list[RideStarted]) -> None:
        for event in events:
            self._writer.send(event)
            self._handed_over.append(event.ride_id)

    def _write(self, rows: int) -> Path:
        path = self._folder / f"rides-{self._files}.parquet"
        write_sample(path, rows, self._rng.randrange(2**31), "2024-03")
        self._files += 1
        return path

    def _rides(self, path: Path) -> list[RideStarted]:
        return list(rides(read_trips([path]).rides))
