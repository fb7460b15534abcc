"""Reads along while a run goes on, and notes what it sees when."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any, Self

from confluent_kafka import OFFSET_BEGINNING, Message, TopicPartition

from braidstream.settings import Settings
from braidstream.streaming import clients
from braidstream.streaming.ports import Partition
from rides.pipeline import RIDES

_AT_ONCE = 1000
_WAIT = 0.05


class Witness:
    """Reads committed records only, in a thread of its own, from the beginning.

    `seen` says for the partition and offset of each prediction when that was, in milliseconds since 1970; `ends` where
    rides and predictions end by the last record of each partition, by full topic names; `started` and `decided` are
    rides.
    """

    def __init__(self, settings: Settings) -> None:
        self.seen: dict[tuple[int, int], int] = {}
        self.ends: dict[Partition, int] = {}
        self.started: set[bytes] = set()
        self.decided: set[bytes] = set()
        self.counts: Counter[str] = Counter()
        self._names = {settings.named(t.name): t.name for t in (RIDES.subjects, RIDES.predictions, RIDES.decisions)}
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        reader: Any = clients.reader(self._settings, "witness")
        numbers = range(self._settings.partitions)
        reader.assign([TopicPartition(name, number, OFFSET_BEGINNING) for name in self._names for number in numbers])
        while not self._stop.is_set():
            records: list[Message] = reader.consume(_AT_ONCE, _WAIT)
            now = time.time_ns() // 1_000_000
            for record in records:
                if record.error() is None:
                    self._note(record, now)
        reader.close()

    def _note(self, record: Message, now: int) -> None:
        topic, number, offset = str(record.topic()), int(record.partition() or 0), int(record.offset() or 0)
        key = record.key() or b""
        self.counts[self._names[topic]] += 1
        match self._names[topic]:
            case RIDES.subjects.name:
                self.started.add(key)
            case RIDES.predictions.name:
                self.seen.setdefault((number, offset), now)
            case _:
                self.decided.add(key)
                return
        self.ends[Partition(topic, number)] = offset + 1
