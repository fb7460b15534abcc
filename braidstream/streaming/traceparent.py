"""The `traceparent` header, by which a record names its trace: https://www.w3.org/TR/trace-context/"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

HEADER = "traceparent"

_IDS = rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_is_valid = re.compile(rb"00" + _IDS).fullmatch
_later = re.compile(rb"(?!00|ff)[0-9a-f]{2}(" + _IDS + rb")(?:-.*)?", re.DOTALL).fullmatch


def read(value: bytes | None) -> bytes | None:
    """The value of a header as it may be passed on, of 55 bytes; None when it is no trace context.

    One of a later version becomes one of this: what that adds is not known here.
    """
    if value is None or _is_valid(value):
        return value
    later = _later(value)
    return b"00" + bytes(later[1]) if later is not None else None


def last_of(headers: Iterable[tuple[str, bytes | None]]) -> bytes | None:
    """The trace context of a record with these headers: the last one, as whoever adds one is the latest."""
    last = None
    for name, value in headers:
        if name == HEADER:
            last = read(value) or last
    return last


def is_sampled(traceparent: bytes) -> bool:
    """Whether its spans are to be recorded."""
    return int(traceparent[-2:], 16) & 1 == 1


def new_traceparents(count: int) -> list[bytes]:
    """So many new traces, each to be recorded (1), of random ids (2)."""
    digits = os.urandom(24 * count).hex()
    return [
        f"00-{digits[start : start + 32]}-{digits[start + 32 : start + 48]}-03".encode()
        for start in range(0, 48 * count, 48)
    ]
