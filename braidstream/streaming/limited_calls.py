"""Calls that may never return, given up after a limit.

librdkafka's `send_offsets_to_transaction` forgets its limit while it looks for the group's coordinator, and never finds
one that a restarted broker or a failover has made again (confluentinc/librdkafka#5456 and #5511). Its
`abort_transaction` has not returned (seen with 2.16.1) after records of a transaction could not be delivered while a
broker was restarted.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from typing import TypeAlias

_Answer: TypeAlias = "queue.SimpleQueue[BaseException | None]"
_Calls: TypeAlias = "queue.SimpleQueue[tuple[Callable[[], None], _Answer] | None]"


class LimitedCalls:
    """Makes calls in a thread of its own, and waits for each; one at a time. That costs 15 microseconds a call."""

    def __init__(self) -> None:
        self._calls: _Calls | None = None

    def make(self, call: Callable[[], None], limit: float) -> None:
        """Make the call, and raise what it raises; `TimeoutError` when it has not returned after `limit` seconds.

        A call that was given up goes on in a thread that nobody waits for, not even the end of the process.
        """
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            weakref.finalize(self, self._calls.put, None)
            threading.Thread(target=_serve, args=(self._calls,), name="limited calls", daemon=True).start()
        answer: _Answer = queue.SimpleQueue()
        self._calls.put((call, answer))
        try:
            error = answer.get(timeout=limit)
        except queue.Empty:
            self._calls.put(None)
            self._calls = None
            raise TimeoutError(f"no return within {limit:g} s") from None
        if error is not None:
            raise error


def _serve(calls: _Calls) -> None:
    while (next_call := calls.get()) is not None:
        call, answer = next_call
        try:
            call()
        except BaseException as error:
            answer.put(error)
        else:
            answer.put(None)
        del next_call, call, answer  # what they hold, such as a producer, is not to live until the next call
