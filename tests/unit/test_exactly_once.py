"""Whatever fails, whenever: the outputs are those of the inputs, each exactly once, and the offsets match."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import KafkaError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from braidstream.avro import Codec, LocalSchemas
from braidstream.deciding.policy import Known, Verdict
from braidstream.errors import FatalError
from braidstream.streaming.ports import Partition
from braidstream.testing.broker import FakeBroker
from braidstream.testing.kit import PolicyKit, ScorerKit
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.unit.by_hand import LatePolicyKit, LateScorerKit
from tests.unit.events import prediction, ride

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

Kit = ScorerKit[RideStarted] | PolicyKit[RideStarted]


class Chaos:
    """Two workers of one group, to which things happen."""

    def __init__(self, broker: FakeBroker, kits: Sequence[Kit]) -> None:
        self._broker = broker
        self._kits = kits
        self.settle()

    def write(self, number: int, part: str | None) -> None:
        raise NotImplementedError

    def act(self, action: object) -> None:
        match action:
            case Send(parts):
                for number, part in parts:
                    self.write(number, part)
            case Turns(counts):
                for kit, count in zip(self._kits, counts, strict=True):
                    for _ in range(count):
                        self._survive(kit, kit.worker.step)
            case Fail(call, error, done, skip):
                self._broker.fail_next(call, ERRORS[error], done=done, skip=skip)
            case Expire():
                self._expire(action)
            case Restart(worker, crash):
                self._survive(self._kits[worker], lambda: self._restart(self._kits[worker], crash=crash))

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
                self._survive(kit, kit.run)

    def _survive(self, kit: Kit, run: Any) -> None:
        """What ends a worker is for its supervisor, who starts a new one."""
        while True:
            try:
                run()
                break
            except FatalError:
                run = lambda: kit.restart(crash=True)  # noqa: E731


class ScoringChaos(Chaos):
    """Rides are sent to be scored."""

    def __init__(self, guarantee: str, scorer: type[ScorerKit[RideStarted]]) -> None:
        broker = FakeBroker()
        self.kits = [
            scorer(
                RIDES,
                predict=lambda rides: [float(len(event.ride_id)) for event in rides],
                model="tip",
                broker=broker,
                batch_size=3,
                processing_guarantee=guarantee,
            )
            for _ in range(2)
        ]
        self.sent = 0
        super().__init__(broker, self.kits)

    def write(self, number: int, part: str | None) -> None:
        name = f"ride-{self.sent}"
        self._broker.send("ride_started", key=name.encode(), value=self.kits[0].encode(ride(name)))
        self.sent += 1

    def check(self, *, repeats: bool) -> None:
        predicted = Counter(found.subject_id for found in self.kits[0].predictions)
        names = {f"ride-{number}" for number in range(self.sent)}
        assert predicted.keys() == names
        assert repeats or set(predicted.values()) <= {1}
        assert self.kits[0].dead_letters == []
        assert self._broker.committed("kit") == ends(self._broker, "ride_started")


def ends(broker: FakeBroker, topic: str) -> dict[Partition, int]:
    records = broker.records(topic)
    return {Partition(topic, int(r.partition() or 0)): int(r.offset() or 0) + 1 for r in records}


chaos = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])


scorers = pytest.mark.parametrize("scorer", [ScorerKit, LateScorerKit], ids=["at once", "late"])
"""What is published in the background is published at once, or as late as it can be."""


@scorers
@chaos
@given(happens=transactional_actions)
@example(
    happens=[
        Send([(0, None), (0, None)]),
        Fail("deliver", "timed out", done=False, skip=1),
        Turns((1, 0)),
        Restart(0, crash=False),
    ]
)
def test_every_ride_is_scored_exactly_once(scorer: type[ScorerKit[RideStarted]], happens: list[object]) -> None:
    world = ScoringChaos("exactly_once", scorer)
    for action in happens:
        world.act(action)
    world.settle()
    world.check(repeats=False)


@scorers
@chaos
@given(happens=plain_actions)
def test_every_ride_is_scored_at_least_once(scorer: type[ScorerKit[RideStarted]], happens: list[object]) -> None:
    world = ScoringChaos("at_least_once", scorer)
    for action in happens:
        world.act(action)
    world.settle()
    world.check(repeats=True)


def accept(known: Known[RideStarted]) -> Verdict | None:
    """Waits for everything."""
    return Verdict("review" if known.missing else "accept") if known.final else None


class DecidingChaos(Chaos):
    """Events and predictions of a few rides are sent in any order, any number of times."""

    def __init__(self, guarantee: str, policies: type[PolicyKit[RideStarted]]) -> None:
        broker = FakeBroker()
        self.kits = [
            policies(
                RIDES,
                accept,
                expected=("duration", "tip"),
                deadline=100_000,
                remember=1_000_000,
                broker=broker,
                batch_size=3,
                processing_guarantee=guarantee,
            )
            for _ in range(2)
        ]
        event_type = RIDES.predictions.event_type
        self._codec = Codec(event_type, LocalSchemas(event_type), "predictions")
        super().__init__(broker, self.kits)

    def write(self, number: int, part: str | None) -> None:
        name = f"ride-{number}"
        if part is None:
            self._broker.send("ride_started", key=name.encode(), value=self.kits[0].encode(ride(name)))
        else:
            value = self._codec.encode(prediction(name, part))
            self._broker.send("predictions", key=name.encode(), value=value)

    def expected(self) -> dict[str, tuple[str, ...]]:
        """For each ride whose event was sent what is missing in the end."""
        answered: dict[str, set[str]] = {}
        for record in self._broker.records("predictions"):
            found = self._codec.decode(record.value())
            answered.setdefault(found.subject_id, set()).add(found.model)
        names = {(record.key() or b"").decode() for record in self._broker.records("ride_started")}
        return {
            name: tuple(model for model in ("duration", "tip") if model not in answered.get(name, set()))
            for name in names
        }

    def run(self, happens: Sequence[object]) -> None:
        """Let it all happen, and then every deadline pass."""
        for action in happens:
            self.act(action)
        self.settle()
        for kit in self.kits:
            kit.sleep(200_000)
        self.settle()

    def check(self, *, repeats: bool) -> None:
        decisions = self.kits[0].decisions
        assert {decision.subject_id: tuple(decision.missing) for decision in decisions} == self.expected()
        assert {decision.revision for decision in decisions} <= {0}
        assert repeats or len(decisions) == len(self.expected())
        assert self.kits[0].dead_letters == []


policy_kits = pytest.mark.parametrize("policies", [PolicyKit, LatePolicyKit], ids=["at once", "late"])


@policy_kits
@chaos
@given(happens=transactional_actions)
def test_every_ride_is_decided_exactly_once(policies: type[PolicyKit[RideStarted]], happens: list[object]) -> None:
    world = DecidingChaos("exactly_once", policies)
    world.run(happens)
    world.check(repeats=False)


@policy_kits
@chaos
@given(happens=plain_actions)
def test_every_ride_is_decided_at_least_once(policies: type[PolicyKit[RideStarted]], happens: list[object]) -> None:
    world = DecidingChaos("at_least_once", policies)
    world.run(happens)
    world.check(repeats=True)
