"""The worker's background, with tests saying when it gets on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

from braidstream.testing.kit import HandlerKit, PolicyKit, ScorerKit
from schemas.ride_started import RideStarted
from tests.notifications import Notification

P = ParamSpec("P")
R = TypeVar("R")


class _Call(Future[R]):
    """A call that is made by `run`, at the latest when somebody waits for it."""

    def __init__(self, call: Callable[[], R]) -> None:
        super().__init__()
        self._call = call

    def run(self) -> None:
        if not self.done():
            try:
                self.set_result(self._call())
            except Exception as error:
                self.set_exception(error)

    def result(self, timeout: float | None = None) -> R:
        self.run()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self.run()
        return super().exception(timeout)


class ByHand(Executor):
    """Makes its calls as late as it can: when one is waited for, or by `run`."""

    def __init__(self) -> None:
        self._calls: list[_Call[Any]] = []

    @property
    def waiting(self) -> int:
        """How many calls were not made yet."""
        return sum(not call.done() for call in self._calls)

    def submit(self, call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Note the call; it is the only one that is waiting."""
        assert not self.waiting, "one call at a time"
        future = _Call(partial(call, *args, **kwargs))
        self._calls.append(future)
        return future

    def run(self) -> None:
        """Make the call that is waiting."""
        for call in self._calls:
            call.run()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As a pool does, make the call that is waiting."""
        self.run()


class LateScorerKit(ScorerKit[RideStarted]):
    """A scorer that publishes as late as it can."""

    background: ByHand

    def stop(self, *, crash: bool = False) -> None:
        """End the worker; what it could neither commit nor abort any more runs out."""
        super().stop(crash=crash)
        self.broker.expire_transaction(self.transactional_id)

    def _make_background(self) -> Executor:
        self.background = ByHand()
        return self.background


class LatePolicyKit(PolicyKit[RideStarted]):
    """A decision service that publishes as late as it can."""

    def stop(self, *, crash: bool = False) -> None:
        """As `LateScorerKit.stop`."""
        super().stop(crash=crash)
        self.broker.expire_transaction(self.transactional_id)

    def _make_background(self) -> Executor:
        return ByHand()


class LateHandlerKit(HandlerKit[RideStarted, Notification]):
    """A consumer with a handler that publishes as late as it can."""

    def stop(self, *, crash: bool = False) -> None:
        """As `LateScorerKit.stop`."""
        super().stop(crash=crash)
        self.broker.expire_transaction(self.transactional_id)

    def _make_background(self) -> Executor:
        return ByHand()
