"""The join against every order of arrival, every cut into transactions, and a naive model of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from braidstream.avro import LocalSchemas
from braidstream.deciding.join import Decided, Join, Rules
from braidstream.deciding.policy import Evidence, Known, Policy, Verdict
from braidstream.streaming.state_codecs import StateCodec
from rides.pipeline import RIDES
from schemas.event import Event

DEADLINE = 10
REMEMBER = 25
EXPECTED = ("duration", "tip", "pickup")
MODELS = (*EXPECTED, "weather")
STATE = RIDES.decision_state.event_type
FORMAT = StateCodec(STATE, LocalSchemas(STATE), "decision_state")


class Ride(Event):
    """A subject's own event."""

    name: str


def patient(known: Known[Ride]) -> Verdict | None:
    """Waits for everything."""
    if not known.final:
        return None
    total = sum(evidence.value for evidence in known.predictions.values())
    return Verdict("high" if total > 10 else "low", (f"{len(known.predictions)} known",))


def hasty(known: Known[Ride]) -> Verdict | None:
    """The same, but a high tip is enough at once."""
    tip = known.predictions.get("tip")
    return patient(known._replace(final=known.final or (tip is not None and tip.value > 8)))


def make_join(policy: Policy[Ride] = hasty) -> Join[Ride]:
    return Join(Rules(policy, EXPECTED, DEADLINE, REMEMBER, lambda name: Ride(name=name.decode())), FORMAT)


def restored(log: Mapping[str, bytes | None]) -> Join[Ride]:
    join = make_join()
    for name, value in log.items():
        join.restore(name, FORMAT.decode(value) if value is not None else None)
    return join


class Arrival(NamedTuple):
    """A subject's event (no model), or a prediction for it."""

    subject: str
    model: str | None
    value: float = 0.0

    def join(self, join: Join[Ride], now: int) -> None:
        if self.model is None:
            join.event(self.subject, self.subject.encode(), now)
        else:
            join.prediction(self.subject, Evidence(self.model, "1", self.value), now)


values = st.integers(0, 10).map(float)


@st.composite
def arrivals(draw: st.DrawFn, models: tuple[str, ...] = MODELS) -> list[Arrival]:
    """The events of some subjects and some of their predictions, with exact repeats, in any order."""
    found: list[Arrival] = []
    for subject in draw(st.lists(st.sampled_from("abc"), min_size=1, unique=True)):
        answers = draw(st.dictionaries(st.sampled_from(models), values))
        found += [Arrival(subject, None), *(Arrival(subject, *answer) for answer in answers.items())]
    repeats = draw(st.lists(st.sampled_from(found), max_size=5))
    return draw(st.permutations(found + repeats))


def run(order: Sequence[Arrival], policy: Policy[Ride] = hasty) -> list[Decided]:
    """Everything arrives before the deadline, then it passes."""
    join = make_join(policy)
    for arrival in order:
        arrival.join(join, 0)
    join.advance(DEADLINE, DEADLINE, DEADLINE)
    return list(join.changes().decisions)


@given(arrivals(models=EXPECTED), st.randoms(use_true_random=False))
def test_whatever_the_order_of_arrival_the_decision_is_the_same(order: list[Arrival], random: Random) -> None:
    other = random.sample(order, len(order))

    def decisions(arrived: list[Arrival]) -> dict[str, object]:
        published = run(arrived, patient)
        assert {decided.revision for decided in published} == {0}
        assert len({decided.subject_id for decided in published}) == len(published)
        return {d.subject_id: (d.verdict, d.missing, frozenset(d.evidence)) for d in published}

    assert decisions(order) == decisions(other)
    assert decisions(order).keys() == {arrival.subject for arrival in order}


@given(arrivals(), st.randoms(use_true_random=False))
def test_with_revisions_what_holds_in_the_end_is_the_same(order: list[Arrival], random: Random) -> None:
    assert final(run(order)) == final(run(random.sample(order, len(order))))


def final(published: Sequence[Decided]) -> dict[str, tuple[str, bool]]:
    """Action and completeness in the end, by subject; revisions must be numbered without a gap from 0."""
    by_subject: dict[str, list[Decided]] = {}
    for decided in published:
        by_subject.setdefault(decided.subject_id, []).append(decided)
    for revisions in by_subject.values():
        assert [decided.revision for decided in revisions] == list(range(len(revisions)))
    return {name: (revisions[-1].verdict.action, not revisions[-1].missing) for name, revisions in by_subject.items()}


attempts = st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), max_size=12)
"""Of each transaction: how many arrivals it takes, whether it is committed, and whether a restart follows."""


@given(arrivals(), attempts)
def test_cuts_rollbacks_and_restarts_publish_the_same(order: list[Arrival], plan: list[tuple[int, bool, bool]]) -> None:
    published: list[Decided] = []
    log: dict[str, bytes | None] = {}
    join = make_join()
    left = order
    for size, is_committed, restarts in [*plan, (len(order), True, True)]:
        for arrival in left[:size]:
            arrival.join(join, 0)
        if is_committed:
            changes = join.changes()
            published += changes.decisions
            log |= changes.states
            join.commit()
            left = left[size:]
        else:
            join.rollback()
        if restarts:
            join = restored(log)
    join.advance(DEADLINE, DEADLINE, DEADLINE)
    assert published + list(join.changes().decisions) == run(order)


@dataclass
class Subject:
    """What a naive join knows of a subject."""

    first_seen: int
    expires: int
    opened: bool = False
    evidence: dict[str, float] = field(default_factory=dict)
    closed: tuple[str, bool] | None = None
    revision: int = 0


class NaiveJoin:
    """The same rules, without a heap, staging or a policy's wishes: every subject is looked at every time."""

    def __init__(self) -> None:
        self.subjects: dict[str, Subject] = {}
        self.published: list[tuple[str, int, str, tuple[str, ...]]] = []

    def event(self, name: str, now: int) -> None:
        waiting = self.subjects.get(name)
        if waiting is None or not waiting.opened:
            evidence = waiting.evidence if waiting else {}
            self.subjects[name] = Subject(now, now + DEADLINE, opened=True, evidence=evidence)
            self._ask(name, now, final=False)

    def prediction(self, name: str, model: str, value: float, now: int) -> None:
        subject = self.subjects.setdefault(name, Subject(now, now + DEADLINE))
        if model not in subject.evidence:
            subject.evidence[model] = value
            if subject.opened:
                self._ask(name, now, final=subject.closed is not None)

    def advance(self, now: int, predictions_read: int, events_read: int) -> None:
        for name, subject in sorted(self.subjects.items(), key=lambda item: (item[1].expires, item[0])):
            if subject.expires > min(now, predictions_read if subject.opened else events_read):
                continue
            if subject.opened and subject.closed is None:
                self._ask(name, now, final=True)
            else:
                del self.subjects[name]

    def _ask(self, name: str, now: int, *, final: bool) -> None:
        subject = self.subjects[name]
        missing = tuple(model for model in EXPECTED if model not in subject.evidence)
        if not (final or not missing or subject.evidence.get("tip", 0) > 8):
            return
        action = "high" if sum(subject.evidence.values()) > 10 else "low"
        if subject.closed == (action, not missing):
            return
        if subject.closed is None:
            subject.expires = now + REMEMBER
        else:
            subject.revision += 1
        subject.closed = action, not missing
        self.published.append((name, subject.revision, action, missing))


names = st.sampled_from("abcd")


class JoinMachine(RuleBasedStateMachine):
    """Drives both; what is rolled back never happened in the naive one."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.join = make_join()
        self.log: dict[str, bytes | None] = {}
        self.committed: list[tuple[str, int, str, tuple[str, ...]]] = []
        self.naive = NaiveJoin()
        self.naive_at_commit = NaiveJoin()

    @rule(name=names)
    def event(self, name: str) -> None:
        self.join.event(name, name.encode(), self.now)
        self.naive.event(name, self.now)

    @rule(name=names, model=st.sampled_from(MODELS), value=values)
    def prediction(self, name: str, model: str, value: float) -> None:
        self.join.prediction(name, Evidence(model, "1", value), self.now)
        self.naive.prediction(name, model, value, self.now)

    @rule(passed=st.integers(0, 12), predictions_behind=st.integers(0, 12), events_behind=st.integers(0, 12))
    def time_passes(self, passed: int, predictions_behind: int, events_behind: int) -> None:
        self.now += passed
        read = self.now - predictions_behind, self.now - events_behind
        self.join.advance(self.now, *read)
        self.naive.advance(self.now, *read)

    @rule()
    def commit(self) -> None:
        changes = self.join.changes()
        self.committed += [(d.subject_id, d.revision, d.verdict.action, d.missing) for d in changes.decisions]
        self.log |= changes.states
        self.join.commit()
        self.naive_at_commit = deepcopy(self.naive)

    @rule()
    def rollback(self) -> None:
        self.join.rollback()
        self.naive = deepcopy(self.naive_at_commit)

    @rule()
    @precondition(lambda self: not self.join.changes().states)
    def restart(self) -> None:
        self.join = restored(self.log)

    @invariant()
    def same_decisions(self) -> None:
        staged = [(d.subject_id, d.revision, d.verdict.action, d.missing) for d in self.join.changes().decisions]
        assert self.committed + staged == self.naive.published

    @invariant()
    def same_subjects(self) -> None:
        assert len(self.join) == len(self.naive.subjects)
        assert self.join.open == sum(s.opened and s.closed is None for s in self.naive.subjects.values())
        for name, subject in self.naive.subjects.items():
            state = self.join.state(name)
            assert state is not None
            assert {evidence.model: evidence.value for evidence in state.evidence} == subject.evidence
            assert (state.first_seen_at, state.expires_at) == (subject.first_seen, subject.expires)

    @invariant()
    def never_overlooks_an_expiry(self) -> None:
        if self.naive.subjects:
            assert self.join.due(min(subject.expires for subject in self.naive.subjects.values()))


TestJoinAgainstTheNaiveOne = JoinMachine.TestCase
TestJoinAgainstTheNaiveOne.settings = settings(max_examples=150, stateful_step_count=30)
