"""What decisions and their changelog must be, given the rides, the predictions in the log, and the policy.

The order of a partition is the order in which its predictions were joined. So the evidence of a first decision is the
first so many of them, and what revisions follow is known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from braidstream.deciding.policy import Evidence, Known, Verdict
from schemas.decision import Decision
from schemas.decision import Evidence as DecisionEvidence
from schemas.decision_state import DecisionState
from schemas.prediction import Prediction
from schemas.ride_started import RideStarted
from tests.faults.observed import Kind, Observed, Promise, Read, Violation


class _Ride(NamedTuple):
    """All that there is about one ride: `predictions` are the first of each model, in the log's order."""

    event: RideStarted
    partition: int
    predictions: Sequence[Read[Prediction]]
    decisions: Sequence[Read[Decision]]
    states: Sequence[Read[DecisionState]]


class _Revision(NamedTuple):
    """What a decision says; `evidence` is how many of the ride's predictions it rests on."""

    action: str
    reasons: tuple[str, ...]
    missing: tuple[str, ...]
    evidence: int

    @property
    def outcome(self) -> tuple[str, bool]:
        """What a further revision has to change."""
        return self.action, not self.missing


def decision_violations(observed: Observed, promise: Promise) -> Iterator[Violation]:
    """Every decision that is missing, there once too often, not the policy's, or made too soon."""
    decisions, states = _by_key(observed.decisions), _by_key(observed.states)
    rides = {record.value.ride_id: record for record in reversed(observed.rides) if record.value is not None}
    firsts = _first_predictions(observed.predictions)
    for name, records in (("decision", decisions), ("state", states)):
        for ride_id in records.keys() - rides.keys():
            yield Violation("wrong", f"ride {ride_id}", f"has a {name} and was never started")
    for ride_id, record in rides.items():
        assert record.value is not None
        ride = _Ride(
            record.value,
            record.partition,
            list(firsts.get(ride_id, {}).values()),
            decisions.get(ride_id, []),
            states.get(ride_id, []),
        )
        for kind, where, what in _of_ride(ride, promise, observed.seen):
            yield Violation(kind, f"ride {ride_id}{where}", what)


def _by_key(records: Sequence[Read[Decision]] | Sequence[Read[DecisionState]]) -> dict[str, list[Read[Any]]]:
    found: dict[str, list[Read[Any]]] = defaultdict(list)
    for record in records:
        if record.problem is None:
            found[(record.key or b"").decode(errors="replace")].append(record)
    return found


def _first_predictions(records: Sequence[Read[Prediction]]) -> dict[str, dict[str, Read[Prediction]]]:
    firsts: dict[str, dict[str, Read[Prediction]]] = defaultdict(dict)
    for record in records:
        if record.value is not None:
            firsts[record.value.subject_id].setdefault(record.value.model, record)
    return firsts


def _of_ride(ride: _Ride, promise: Promise, seen: Mapping[tuple[int, int], int]) -> Iterator[Violation]:
    if not ride.decisions:
        yield Violation("lost", "", "no decision")
        return
    for number in {record.partition for record in ride.decisions} | {record.partition for record in ride.states}:
        if number != ride.partition:
            yield Violation("wrong", "", f"is on partition {ride.partition}, and a record of it on {number}")
    for record in ride.decisions:
        decision = record.value
        assert decision is not None
        if decision.subject_id != ride.event.ride_id:
            yield Violation("wrong", "", f"has the decision of {decision.subject_id}")
        yield from _single(ride, decision, promise)
        if decision.revision == 0:
            yield from _too_early(ride, decision, promise, seen)
    yield from _exact(ride, promise) if promise.exact else _at_least_once(ride, promise)
    yield from _state(ride, promise)


def _single(ride: _Ride, decision: Decision, promise: Promise) -> Iterator[Violation]:
    """What one decision says is what the policy says of the evidence it names, and that evidence is true."""
    at = f" revision {decision.revision}"
    known = len(decision.evidence)
    if _evidence(decision.evidence) != _in_log(ride.predictions[:known]):
        log = _in_log(ride.predictions)
        yield Violation("wrong", at, f"rests on {_evidence(decision.evidence)}, and the log has {log}")
        return
    expected = promise.expected_at(milliseconds(decision.opened_at))
    allowed = [_revision(ride, known, expected, promise, final=final) for final in (True, False)]
    said = _said(decision)
    if said not in allowed or decision.complete is bool(decision.missing):
        yield Violation("wrong", at, f"is {said}, complete={decision.complete}, and the policy says {allowed[0]}")


def _too_early(
    ride: _Ride, decision: Decision, promise: Promise, seen: Mapping[tuple[int, int], int]
) -> Iterator[Violation]:
    """A partial decision waits for its deadline, and for what was answered by then."""
    opened_at, decided_at = milliseconds(decision.opened_at), milliseconds(decision.decided_at)
    expected = promise.expected_at(opened_at)
    evidence, deadline = len(decision.evidence), opened_at + promise.deadline
    if not decision.missing or _revision(ride, evidence, expected, promise, final=False) is not None:
        return
    if decided_at < deadline:
        what = f"decided {decided_at - opened_at} ms after it was opened without {', '.join(decision.missing)}"
        yield Violation("early", "", f"{what}: the deadline is {promise.deadline} ms")
    for prediction in ride.predictions[evidence:]:
        assert prediction.value is not None
        seen_at = seen.get((prediction.partition, prediction.offset), deadline)
        if prediction.value.model in decision.missing and seen_at < deadline:
            yield Violation(
                "early",
                "",
                f"decided without the prediction of {prediction.value.model} at offset {prediction.offset}, which was "
                f"committed {deadline - seen_at} ms or more before the deadline",
            )


def _exact(ride: _Ride, promise: Promise) -> Iterator[Violation]:
    """The revisions are those that follow from the first decision, each once and in order."""
    made = [record.value for record in ride.decisions if record.value is not None]
    numbers = [decision.revision for decision in made]
    if numbers != list(range(len(made))):
        yield Violation("twice" if len(set(numbers)) < len(numbers) else "lost", "", f"has the revisions {numbers}")
        return
    if len({decision.opened_at for decision in made}) > 1:
        yield Violation("wrong", "", f"was opened at {[str(decision.opened_at) for decision in made]}")
    said = [_said(decision) for decision in made]
    possible = list(_possible_chains(ride, made[0], promise))
    if said not in possible:
        kind: Kind = "lost" if len(said) < len(possible[0]) else "wrong"
        yield Violation(kind, "", f"has the revisions {said}, and {possible[-1]} follow from the predictions")


def _at_least_once(ride: _Ride, promise: Promise) -> Iterator[Violation]:
    """Revisions may be repeated; none is left out, and the last one written says what follows from all predictions.

    After a pause any one of them has to.
    """
    made = [record.value for record in ride.decisions if record.value is not None]
    numbers = sorted({decision.revision for decision in made})
    if numbers != list(range(len(numbers))):
        yield Violation("lost", "", f"has the revisions {numbers}")
    for decision in made if promise.paused else made[-1:]:
        possible = [chain[-1].outcome for chain in _possible_chains(ride, decision, promise)]
        if _said(decision).outcome in possible:
            return
    yield Violation("wrong", "", f"was last decided {_said(made[-1])}, and {possible[-1]} follows")


def _possible_chains(ride: _Ride, start: Decision, promise: Promise) -> Iterator[list[_Revision]]:
    """The revisions that follow from a decision and the predictions behind its evidence.

    A closed ride is forgotten when its time is over: what is predicted around then may or may not have counted.
    """
    expected = promise.expected_at(milliseconds(start.opened_at))
    evidence = len(start.evidence)
    forgotten_at = milliseconds(start.decided_at) + promise.remember
    certain = sum(prediction.timestamp < forgotten_at for prediction in ride.predictions)
    end = len(ride.predictions)
    for counted in range(min(max(certain, evidence), end), end + 1):
        chain = [_said(start)]
        for known in range(evidence + 1, counted + 1):
            next_one = _revision(ride, known, expected, promise, final=True)
            if next_one is not None and next_one.outcome != chain[-1].outcome:
                chain.append(next_one)
        yield chain


def _state(ride: _Ride, promise: Promise) -> Iterator[Violation]:
    """The changelog ends with the last decision and all predictions, or with a tombstone when its time was over."""
    if promise.paused and not promise.exact:
        return
    last = ride.decisions[-1].value
    first = ride.decisions[0].value
    assert last is not None
    assert first is not None
    forgotten_at = milliseconds(first.decided_at) + promise.remember
    if not ride.states:
        yield Violation("lost", "", "was decided, and the changelog knows nothing of it")
        return
    state, timestamp = ride.states[-1].value, ride.states[-1].timestamp
    if state is None:
        if timestamp < forgotten_at:
            early = forgotten_at - timestamp
            yield Violation("lost", "", f"was forgotten {early} ms before REMEMBER was over")
        return
    outcome = state.outcome
    if outcome is None:
        yield Violation("lost", "", f"was decided, revision {last.revision}, and the changelog has it as open")
    elif (outcome.revision, outcome.action, outcome.complete) != (last.revision, last.action, last.complete):
        what = f"revision {last.revision}, {last.action}, complete={last.complete}"
        yield Violation("wrong", "", f"was decided {what}, and the changelog says {outcome}")
    log = _in_log(ride.predictions)
    certain = sum(prediction.timestamp < forgotten_at for prediction in ride.predictions)
    held = _evidence(state.evidence)
    if held != log[: len(held)] or len(held) < certain:
        yield Violation("wrong", "", f"rests on {held} in the changelog, and the log has {log}")
    if tuple(state.expected) != promise.expected_at(milliseconds(state.first_seen_at)):
        yield Violation("wrong", "", f"expects {state.expected} in the changelog")


def _revision(
    ride: _Ride, evidence: int, expected: tuple[str, ...], promise: Promise, *, final: bool
) -> _Revision | None:
    """What the policy says of the first predictions of a ride; None when it waits."""
    predictions = {item.model: item for item in _in_log(ride.predictions[:evidence])}
    missing = tuple(model for model in expected if model not in predictions)
    known = Known(ride.event.ride_id, lambda: ride.event, predictions, expected, missing, final or not missing)
    verdict: Verdict | None = promise.policy(known)
    return _Revision(verdict.action, verdict.reasons, missing, evidence) if verdict is not None else None


def _said(decision: Decision) -> _Revision:
    return _Revision(decision.action, tuple(decision.reasons), tuple(decision.missing), len(decision.evidence))


def _evidence(items: Sequence[DecisionEvidence]) -> list[Evidence]:
    return [Evidence(item.model, item.model_version, item.value) for item in items]


def _in_log(predictions: Sequence[Read[Prediction]]) -> list[Evidence]:
    values = (prediction.value for prediction in predictions)
    return [Evidence(value.model, value.model_version, value.value) for value in values if value is not None]


def milliseconds(time: datetime) -> int:
    """Milliseconds since 1970."""
    return round(time.timestamp() * 1000)
