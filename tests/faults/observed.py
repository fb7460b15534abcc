"""What was read of a pipeline, what it was set to, and what was found to be wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar

from braidstream.deciding.policy import Policy
from braidstream.settings import Guarantee
from braidstream.streaming.ports import Partition
from rides.pipeline import RIDES
from schemas.decision import Decision
from schemas.decision_state import DecisionState
from schemas.prediction import Prediction
from schemas.ride_started import RideStarted

T = TypeVar("T")

Kind = Literal["lost", "twice", "wrong", "early"]
"""What can be wrong: something is missing, there once too often, not what it should be, or decided too soon."""


class Read(NamedTuple, Generic[T]):
    """A record as a read_committed reader sees it.

    `value` is None for a tombstone, and when `problem` says why it is no event; then `raw` is what was read.
    `timestamp` is in milliseconds since 1970.
    """

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    headers: Mapping[str, bytes | None]
    value: T | None
    problem: str | None = None
    raw: bytes | None = None


class Violation(NamedTuple):
    """Something that was promised and is not so; `where` names the ride, or the topic and the partition."""

    kind: Kind
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.what}"


@dataclass(frozen=True)
class Observed:
    """Everything in the topics when all is settled, each topic in the order of its partitions.

    `committed` are the offsets by the groups' full names. `acknowledged` are rides that the broker has confirmed to
    the producer. `seen` says for the partition and offset of a prediction when a live reader saw it first, in
    milliseconds since 1970.
    """

    rides: Sequence[Read[RideStarted]]
    predictions: Sequence[Read[Prediction]]
    decisions: Sequence[Read[Decision]]
    states: Sequence[Read[DecisionState]]
    dead_letters: Sequence[Read[bytes]]
    committed: Mapping[str, Mapping[Partition, int]]
    acknowledged: Collection[str] = ()
    seen: Mapping[tuple[int, int], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A model's worker as a function, to be asked once for all rides."""

    version: str
    predict: Callable[[Sequence[RideStarted]], Iterable[float]]


@dataclass(frozen=True)
class Promise:
    """What the pipeline was set to do.

    `expected` is EXPECTED_MODELS, each with the time from which it held. `deadline` and `remember` and all times are
    in milliseconds. `decider` is the decision service's group, without `prefix`. `paused` says that workers stood still
    while they published: without transactions, what they had in hand may be the last that is written.
    """

    guarantee: Guarantee
    models: Mapping[str, Model]
    expected: Sequence[tuple[int, tuple[str, ...]]]
    policy: Policy[RideStarted]
    deadline: int
    remember: int = 3_600_000
    prefix: str = ""
    decider: str = "decision"
    paused: bool = False

    def expected_at(self, opened_at: int) -> tuple[str, ...]:
        """The models that a decision opened at this time waits for."""
        return [models for since, models in self.expected if since <= opened_at][-1]

    @property
    def exact(self) -> bool:
        """Whether nothing may be done twice."""
        return self.guarantee == "exactly_once"

    @property
    def readers(self) -> Mapping[str, Sequence[str]]:
        """The topics that each group reads, by full names."""
        rides, predictions = (f"{self.prefix}{topic.name}" for topic in (RIDES.subjects, RIDES.predictions))
        scoring: dict[str, Sequence[str]] = {f"{self.prefix}{model}": (rides,) for model in self.models}
        return scoring | {f"{self.prefix}{self.decider}": (rides, predictions)}
