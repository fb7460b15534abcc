"""A whole pipeline in memory, and one story that happens to it: every kind of broken worker does harm in it."""

from __future__ import annotations

from collections.abc import Callable

from braidstream.avro import LocalSchemas
from braidstream.deciding.policy import Known, Verdict
from braidstream.errors import FatalError
from braidstream.testing.broker import FakeBroker
from braidstream.testing.kit import PolicyKit, ScorerKit
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.faults.checker import Model, Observed, Promise
from tests.faults.reading import read_dead_letters, read_inputs, read_outputs
from tests.unit.chaos import survive
from tests.unit.events import ride

DURATION, TIP = MODELS = ("duration", "tip")
DEADLINE = 30.0
_VERSION = "1"
_GROUP = "decision"

Kit = ScorerKit[RideStarted] | PolicyKit[RideStarted]


def _policy(known: Known[RideStarted]) -> Verdict | None:
    if not known.final:
        return None
    return Verdict("review" if known.missing else "accept", tuple(sorted(known.predictions)))


def _values(model: str) -> Callable[..., list[float]]:
    return lambda rides: [float(event.pickup_zone * len(model)) for event in rides]


class Story:
    """Told once. Times are the kits', which all have the same."""

    def __init__(
        self,
        scorer: type[ScorerKit[RideStarted]] = ScorerKit,
        decider: type[PolicyKit[RideStarted]] = PolicyKit,
    ) -> None:
        self._broker = FakeBroker(partitions=2)
        self._scorers = {
            model: scorer(
                RIDES,
                predict=_values(model),
                model=model,
                version=_VERSION,
                broker=self._broker,
                group=model,
                batch_size=4,
            )
            for model in MODELS
        }
        self._decider = decider(
            RIDES, _policy, expected=MODELS, deadline=DEADLINE, broker=self._broker, group=_GROUP, batch_size=2
        )
        self._seen: dict[tuple[int, int], int] = {}
        self._sent = 0

    def tell(self) -> Observed:
        """All that happens, and what is in the topics then."""
        duration, tip, decider = self._scorers[DURATION], self._scorers[TIP], self._decider
        self._send(10)
        self._broker.send(RIDES.subjects.name, key=b"bad", value=b"no ride")
        self._run(decider)
        self._run_and_kill(duration)
        self._run(decider)
        decider.restart(crash=True)
        self._sleep(DEADLINE / 3)
        self._run(tip)
        # All is predicted in time, and read when the deadline is over.
        self._sleep(DEADLINE)
        self._run(decider)
        self._send(10)
        self._run(decider)
        self._run(duration)
        self._run_and_kill(decider)
        self._sleep(2 * DEADLINE)
        self._run_and_kill(decider)
        self._run(tip)
        self._run(decider)
        return self._observed()

    def promise(self) -> Promise:
        """What has to come of it."""
        return Promise(
            guarantee="exactly_once",
            models={model: Model(_VERSION, _values(model)) for model in MODELS},
            expected=[(0, MODELS)],
            policy=_policy,
            deadline=round(DEADLINE * 1000),
            decider=_GROUP,
        )

    def _send(self, count: int) -> None:
        for number in range(self._sent, self._sent + count):
            event = ride(f"ride-{number}", pickup_zone=number + 1)
            self._broker.send(
                RIDES.subjects.name, key=event.ride_id.encode(), value=self._scorers[DURATION].encode(event)
            )
        self._sent += count

    def _run_and_kill(self, kit: Kit) -> None:
        """Let a worker go on, and kill it when it has written a record, and once more before it commits."""
        self._broker.fail_next("produce", FatalError("killed between two records"), skip=1)
        self._broker.fail_next("commit_transaction", FatalError("killed before the commit"))
        self._run(kit)

    def _run(self, kit: Kit) -> None:
        survive(kit, kit.run)
        now = round(kit.now.timestamp() * 1000)
        for record in self._broker.records(RIDES.predictions.name):
            self._seen.setdefault((record.partition() or 0, record.offset() or 0), now)

    def _sleep(self, seconds: float) -> None:
        for kit in (*self._scorers.values(), self._decider):
            kit.sleep(seconds)

    def _observed(self) -> Observed:
        schemas = LocalSchemas(*(topic.event_type for topic in RIDES.topics))
        records = self._broker.records
        return Observed(
            rides=read_inputs(RIDES.subjects, schemas, records(RIDES.subjects.name)),
            predictions=read_inputs(RIDES.predictions, schemas, records(RIDES.predictions.name)),
            decisions=read_outputs(RIDES.decisions, schemas, records(RIDES.decisions.name)),
            states=read_outputs(RIDES.decision_state, schemas, records(RIDES.decision_state.name)),
            dead_letters=read_dead_letters(records(RIDES.dead_letters)),
            committed={group: self._broker.committed(group) for group in (*MODELS, _GROUP)},
            acknowledged=[f"ride-{number}" for number in range(self._sent)],
            seen=self._seen,
        )
