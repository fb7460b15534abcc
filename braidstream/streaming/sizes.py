"""Records that are too large for their topic: which one, made from what, and which setting takes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from braidstream.errors import FatalError
from braidstream.streaming.ports import Headers

_Record: TypeAlias = tuple[str, int, bytes | None, bytes | None, Headers]
_OVERHEAD = 1024
"""Bytes: more than Kafka adds to a record that it keeps by itself."""


def size_of(record: _Record) -> int:
    """Bytes of a record's key, value and headers."""
    _, _, key, value, headers = record
    return len(key or b"") + len(value or b"") + sum(len(name) + len(content or b"") for name, content in headers)


def too_large(records: Iterable[_Record], refused: str) -> FatalError:
    """What stops a worker when one of these records is refused for its size.

    `refused` is what the client says, which names a topic; the record is the largest of those for that topic.
    """
    record = max(records, key=lambda record: (f"{record[0]} [" in refused, size_of(record)))
    topic, _, key, _, headers = record
    size = size_of(record)
    # Those of a dead letter come behind what its record had already.
    origin = {name.rpartition(".")[2]: (content or b"").decode(errors="replace") for name, content in headers}
    is_told = origin.keys() >= {"topic", "partition", "offset"}
    made_from = f", made from {origin['topic']} [{origin['partition']}] offset {origin['offset']}," if is_told else ""
    return FatalError(
        f"a record of {size} bytes is too large for its topic {topic}: the one with the key {key!r:.80}{made_from} was "
        f"refused, and nothing of its batch is committed. Raise max.message.bytes of {topic} to {size + _OVERHEAD} or "
        "more, and KAFKA_MESSAGE_MAX_BYTES too if it is lower, and start again: the worker goes on at that batch."
    )
