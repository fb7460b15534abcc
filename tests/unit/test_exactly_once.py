"""Whatever fails, whenever: the outputs are those of the inputs, each exactly once, and the offsets match."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import example, given

from braidstream.avro import Codec, LocalSchemas
from braidstream.deciding.policy import Known, Verdict
from braidstream.testing.broker import FakeBroker
from braidstream.testing.kit import HandlerKit, PolicyKit, ScorerKit
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.notifications import NOTIFICATIONS, NOTIFIED, NOTIFYING, Notification, notify, users_of
from tests.unit.by_hand import LateHandlerKit, LatePolicyKit, LateScorerKit
from tests.unit.chaos import Chaos, Fail, Restart, Send, Turns, chaos, ends, plain_actions, transactional_actions
from tests.unit.events import prediction, ride


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
    world.run(happens)
    world.check(repeats=False)


@scorers
@chaos
@given(happens=plain_actions)
def test_every_ride_is_scored_at_least_once(scorer: type[ScorerKit[RideStarted]], happens: list[object]) -> None:
    world = ScoringChaos("at_least_once", scorer)
    world.run(happens)
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
        super().run(happens)
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


class HandlingChaos(Chaos):
    """Events of a few rides are sent any number of times, and people are notified of each ride once."""

    def __init__(self, guarantee: str, handlers: type[HandlerKit[RideStarted, Notification]]) -> None:
        broker = FakeBroker()
        self.kits = [
            handlers(
                NOTIFYING,
                notify,
                writes=NOTIFICATIONS,
                once=NOTIFIED,
                broker=broker,
                batch_size=3,
                processing_guarantee=guarantee,
            )
            for _ in range(2)
        ]
        super().__init__(broker, self.kits)

    def write(self, number: int, part: str | None) -> None:
        name = f"ride-{number}"
        value = self.kits[0].encode(ride(name, passenger_count=number % 4))
        self._broker.send("ride_started", key=name.encode(), value=value)

    def check(self, *, repeats: bool) -> None:
        codec = Codec(RIDES.subjects.event_type, LocalSchemas(RIDES.subjects.event_type), "ride_started")
        sent = [codec.decode(record.value()) for record in self._broker.records("ride_started")]
        given = Counter((found.ride_id, found.user_id) for found in self.kits[0].outputs)
        assert given.keys() == {(event.ride_id, user) for event in sent for user in users_of(event)}
        assert repeats or set(given.values()) <= {1}
        assert self.kits[0].dead_letters == []
        assert self._broker.committed("kit") == ends(self._broker, "ride_started")
        handled = sum(kit.processor.gauges()["handled"] for kit in self.kits)
        assert handled == len({event.ride_id for event in sent})


handler_kits = pytest.mark.parametrize("handlers", [HandlerKit, LateHandlerKit], ids=["at once", "late"])


@handler_kits
@chaos
@given(happens=transactional_actions)
def test_every_ride_is_handled_once(
    handlers: type[HandlerKit[RideStarted, Notification]], happens: list[object]
) -> None:
    world = HandlingChaos("exactly_once", handlers)
    world.run(happens)
    world.check(repeats=False)


@handler_kits
@chaos
@given(happens=plain_actions)
def test_every_ride_is_handled_at_least_once(
    handlers: type[HandlerKit[RideStarted, Notification]], happens: list[object]
) -> None:
    world = HandlingChaos("at_least_once", handlers)
    world.run(happens)
    world.check(repeats=True)
