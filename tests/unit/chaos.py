"""Workers to which things happen: inputs, failures of every call, sessions that end, restarts, in any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from braidstream.errors import FatalError
from braidstream.streaming.ports import Partition
from braidstream.testing.broker import FakeBroker
from braidstream.testing.kit import HandlerKit, PolicyKit, ScorerKit
from schemas.ride_started import RideStarted

ERRORS = {
    "retriable": KafkaError(KafkaError.COORDINATOR_NOT_AVAILABLE, retriable=True),
    "timed out": KafkaError(KafkaError._TIMED_OUT, retriable=True),
    "abortable": KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True),
    "fenced": KafkaError(KafkaError._FENCED, fatal=True),
}
CALLS = ["begin_transaction", "deliver", "send_offsets_to_transaction", "commit_transaction", "abort_transaction"]
CONSUMER_CALLS = ["consume", "committed", "seek", "position", "ends", "reader.consume", "reader.position"]


@dataclass(frozen=True)
class Send:
    """Inputs are written: by the ride's number its event (None), or a model's prediction."""

    parts: list[tuple[int, str | None]]


@dataclass(frozen=True)
class Turns:
    """The workers take turns, so many each."""

    counts: tuple[int, int]


@dataclass(frozen=True)
class Fail:
    """A later call fails, before or after it took effect."""

    call: str
    error: str
    done: bool
    skip: int


@dataclass(frozen=True)
class Expire:
    """A worker is given up by its group, its transaction by the broker, or both, and it does not notice."""

    worker: int
    member: bool
    transaction: bool
    in_the_middle: bool


@dataclass(frozen=True)
class Restart:
    """A worker is replaced by a new one."""

    worker: int
    crash: bool


workers = st.integers(0, 1)
parts = st.tuples(st.integers(0, 9), st.sampled_from([None, "duration", "tip"]))
consumer_failures = st.builds(
    Fail, st.sampled_from(CONSUMER_CALLS), st.just("retriable"), done=st.just(False), skip=st.integers(0, 6)
)
transaction_failures = st.builds(
    Fail, st.sampled_from(CALLS), st.sampled_from([*ERRORS]), done=st.booleans(), skip=st.integers(0, 3)
)
plain_failures = st.builds(
    Fail,
    st.sampled_from(["deliver", "flush", "commit"]),
    st.sampled_from([*ERRORS]),
    done=st.booleans(),
    skip=st.integers(0, 3),
)


def actions(*more: st.SearchStrategy[object]) -> st.SearchStrategy[list[object]]:
    """What may happen with either guarantee, and more."""
    return st.lists(
        st.one_of(
            st.builds(Send, st.lists(parts, min_size=1, max_size=6)),
            st.builds(Turns, st.tuples(st.integers(0, 4), st.integers(0, 4))),
            consumer_failures,
            st.builds(Restart, workers, st.booleans()),
            *more,
        ),
        max_size=25,
    )


transactional_actions = actions(
    transaction_failures, st.builds(Expire, workers, st.booleans(), st.booleans(), st.booleans())
)
plain_actions = actions(
    plain_failures,
    st.builds(Expire, workers, member=st.just(True), transaction=st.just(False), in_the_middle=st.just(False)),
)

Kit = ScorerKit[RideStarted] | PolicyKit[RideStarted] | HandlerKit[RideStarted, Any]


class Chaos:
    """Two workers of one group, to which things happen."""

    def __init__(self, broker: FakeBroker, kits: Sequence[Kit]) -> None:
        self._broker = broker
        self._kits = kits
        self.settle()

    def write(self, number: int, part: str | None) -> None:
        raise NotImplementedError

    def run(self, happens: Sequence[object]) -> None:
        """Let it all happen."""
        for action in happens:
            self._act(action)
        self.settle()

    def _act(self, action: object) -> None:
        match action:
            case Send(parts):
                for number, part in parts:
                    self.write(number, part)
            case Turns(counts):
                for kit, count in zip(self._kits, counts, strict=True):
                    for _ in range(count):
                        survive(kit, kit.worker.step)
            case Fail(call, error, done, skip):
                self._broker.fail_next(call, ERRORS[error], done=done, skip=skip)
            case Expire():
                self._expire(action)
            case Restart(worker, crash):
                survive(self._kits[worker], lambda: self._restart(self._kits[worker], crash=crash))

    def _restart(self, kit: Kit, *, crash: bool) -> None:
        """What was left open is ended by the broker, after a while."""
        kit.stop(crash=crash)
        self._broker.expire_transaction(kit.transactional_id)
        kit.start()

    def _expire(self, action: Expire) -> None:
        kit = self._kits[action.worker]

        def expire() -> None:
            if action.member:
                self._broker.expire_member(kit.consumer)
            if action.transaction:
                self._broker.expire_transaction(kit.transactional_id)

        if action.in_the_middle:
            self._broker.run_before("commit_transaction", expire)
        else:
            expire()

    def settle(self) -> None:
        """Let everybody go on until nothing more happens, and what was planned to fail has failed."""
        for _ in range(10):
            for kit in self._kits:
                survive(kit, kit.run)


def survive(kit: Kit, run: Callable[[], object]) -> None:
    """What ends a worker is for its supervisor, who starts a new one."""
    while True:
        try:
            run()
            break
        except FatalError:
            run = lambda: kit.restart(crash=True)  # noqa: E731


def ends(broker: FakeBroker, topic: str) -> dict[Partition, int]:
    records = broker.records(topic)
    return {Partition(topic, int(r.partition() or 0)): int(r.offset() or 0) + 1 for r in records}


chaos = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
