"""The checker finds what is wrong: in the log of workers that are broken on purpose, and in logs that were changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from braidstream.streaming.ports import Partition
from braidstream.testing.kit import PolicyKit, ScorerKit
from schemas.decision import Decision
from schemas.ride_started import RideStarted
from tests.faults.broken import (
    DeciderOffsetsFirst,
    DeciderOutsideTheTransaction,
    ForgetfulDecider,
    HastyDecider,
    ScorerOffsetsFirst,
    ScorerOutsideTheTransaction,
)
from tests.faults.checker import Observed, Read, check
from tests.faults.observed import Kind
from tests.faults.story import Story

T = TypeVar("T")


def test_right_workers_pass() -> None:
    story = Story()
    observed = story.tell()
    assert check(observed, story.promise()) == []
    decisions = [record.value for record in observed.decisions if record.value is not None]
    assert {(d.revision, d.complete) for d in decisions} == {(0, True), (0, False), (1, True)}, "a story with both"
    assert len(observed.dead_letters) == 3


@pytest.mark.parametrize(
    ("scorer", "kind"), [(ScorerOutsideTheTransaction, "twice"), (ScorerOffsetsFirst, "lost")], ids=["outside", "early"]
)
def test_a_broken_scorer_is_caught(scorer: type[ScorerKit[RideStarted]], kind: Kind) -> None:
    story = Story(scorer=scorer)
    found = check(story.tell(), story.promise())
    assert any(v.kind == kind and "prediction" in v.what for v in found), found


@pytest.mark.parametrize(
    ("decider", "kind", "what"),
    [
        (DeciderOutsideTheTransaction, "twice", "has the revisions [0, 0"),
        (DeciderOffsetsFirst, "lost", "follow from the predictions"),
        (ForgetfulDecider, "lost", "no decision"),
        (HastyDecider, "early", "decided without the prediction of tip"),
    ],
    ids=["outside", "early", "forgetful", "hasty"],
)
def test_a_broken_decision_service_is_caught(decider: type[PolicyKit[RideStarted]], kind: Kind, what: str) -> None:
    story = Story(decider=decider)
    found = check(story.tell(), story.promise())
    assert any(v.kind == kind and what in v.what for v in found), found


@pytest.fixture(scope="module")
def told() -> Observed:
    return Story().tell()


def without(records: Sequence[Read[T]], index: int = 0) -> list[Read[T]]:
    return [record for place, record in enumerate(records) if place != index]


def changed(records: Sequence[Read[Any]], index: int = 0, **fields: Any) -> list[Read[Any]]:
    """The first records with one of them changed: in the record, or with `value__` in its event."""
    own = {name: value for name, value in fields.items() if not name.startswith("value__")}
    inner = {name.removeprefix("value__"): value for name, value in fields.items() if name.startswith("value__")}
    record = records[index]._replace(**own)
    if inner:
        assert record.value is not None
        record = record._replace(value=record.value.model_copy(update=inner))
    return [record if place == index else other for place, other in enumerate(records)]


def where(records: Sequence[Read[Decision]], revision: int, *, complete: bool) -> int:
    """The index of the first such decision."""
    return next(
        index
        for index, record in enumerate(records)
        if record.value is not None and (record.value.revision, record.value.complete) == (revision, complete)
    )


Change = Callable[[Observed], Observed]


def first_partial_decided_sooner(o: Observed) -> Observed:
    index = where(o.decisions, 0, complete=False)
    decision = o.decisions[index].value
    assert decision is not None
    sooner = decision.opened_at + timedelta(seconds=29)
    return replace(o, decisions=changed(o.decisions, index, value__decided_at=sooner))


def last_offsets_back(o: Observed) -> Observed:
    group = dict(o.committed["tip"])
    partition = next(iter(group))
    return replace(o, committed={**o.committed, "tip": {**group, partition: group[partition] - 1}})


def last_offsets_ahead(o: Observed) -> Observed:
    ahead = {Partition(topic, number): offset + 1 for (topic, number), offset in o.committed["decision"].items()}
    return replace(o, committed={**o.committed, "decision": ahead})


CHANGES: dict[str, tuple[Change, Kind, str]] = {
    "a ride is gone": (lambda o: replace(o, acknowledged=[*o.acknowledged, "ride-99"]), "lost", "not in ride_started"),
    "a prediction is gone": (lambda o: replace(o, predictions=without(o.predictions)), "lost", "no prediction of"),
    "a prediction that was seen is gone": (
        lambda o: replace(o, seen={**o.seen, (0, 10_000): 1}),
        "lost",
        "a reader of committed records saw it",
    ),
    "a prediction is doubled": (
        lambda o: replace(o, predictions=[*o.predictions, o.predictions[0]._replace(offset=10_000)]),
        "twice",
        "2 predictions of",
    ),
    "a prediction's value": (
        lambda o: replace(o, predictions=changed(o.predictions, value__value=0.001)),
        "wrong",
        "and 0.001 was published",
    ),
    "a prediction's id": (
        lambda o: replace(o, predictions=changed(o.predictions, value__prediction_id="1")),
        "wrong",
        "prediction_id is '1'",
    ),
    "a prediction's version": (
        lambda o: replace(o, predictions=changed(o.predictions, value__model_version="2")),
        "wrong",
        "model_version is '2'",
    ),
    "a prediction's key": (
        lambda o: replace(o, predictions=changed(o.predictions, key=b"k")),
        "wrong",
        "has the key b'k'",
    ),
    "a prediction's partition": (
        lambda o: replace(o, predictions=changed(o.predictions, partition=7)),
        "wrong",
        "is on partition 7",
    ),
    "a prediction's source": (
        lambda o: replace(o, predictions=changed(o.predictions, headers={})),
        "wrong",
        "its headers name no ride",
    ),
    "a model that does not run": (
        lambda o: replace(o, predictions=changed(o.predictions, value__model="fare")),
        "wrong",
        "predicted by fare",
    ),
    "an output that is no event": (
        lambda o: replace(o, decisions=changed(o.decisions, value=None, problem="not Avro")),
        "wrong",
        "cannot be read: not Avro",
    ),
    "a decision is gone": (lambda o: replace(o, decisions=without(o.decisions)), "lost", "no decision"),
    "a decision is doubled": (
        lambda o: replace(o, decisions=[*o.decisions, o.decisions[0]]),
        "twice",
        "has the revisions [0, 0]",
    ),
    "a first revision is gone": (
        lambda o: replace(o, decisions=without(o.decisions, where(o.decisions, 0, complete=False))),
        "lost",
        "has the revisions [1]",
    ),
    "a second revision is gone": (
        lambda o: replace(o, decisions=without(o.decisions, where(o.decisions, 1, complete=True))),
        "lost",
        "follow from the predictions",
    ),
    "a decision's action": (
        lambda o: replace(o, decisions=changed(o.decisions, value__action="refuse")),
        "wrong",
        "and the policy says",
    ),
    "a decision's reasons": (
        lambda o: replace(o, decisions=changed(o.decisions, value__reasons=["none"])),
        "wrong",
        "and the policy says",
    ),
    "a decision's completeness": (
        lambda o: replace(o, decisions=changed(o.decisions, value__complete=False)),
        "wrong",
        "and the policy says",
    ),
    "a decision's evidence": (
        lambda o: replace(o, decisions=changed(o.decisions, value__evidence=o.decisions[1].value.evidence)),  # type: ignore[union-attr]
        "wrong",
        "and the log has",
    ),
    "a decision's subject": (
        lambda o: replace(o, decisions=changed(o.decisions, value__subject_id="ride-5000")),
        "wrong",
        "has the decision of ride-5000",
    ),
    "a decision's partition": (
        lambda o: replace(o, decisions=changed(o.decisions, partition=7)),
        "wrong",
        "a record of it on 7",
    ),
    "a decision of nothing": (
        lambda o: replace(o, decisions=[*o.decisions, o.decisions[0]._replace(key=b"ride-5000")]),
        "wrong",
        "has a decision and was never started",
    ),
    "a decision before its deadline": (first_partial_decided_sooner, "early", "the deadline is 30000 ms"),
    "a decision without what was there": (
        lambda o: replace(o, seen=dict.fromkeys(o.seen, 0)),
        "early",
        "committed",
    ),
    "no state": (lambda o: replace(o, states=[]), "lost", "the changelog knows nothing of it"),
    "an open state": (
        lambda o: replace(o, states=changed(o.states, -1 % len(o.states), value__outcome=None)),
        "lost",
        "the changelog has it as open",
    ),
    "a state without evidence": (
        lambda o: replace(o, states=changed(o.states, -1 % len(o.states), value__evidence=[])),
        "wrong",
        "in the changelog, and the log has",
    ),
    "a state forgotten too soon": (
        lambda o: replace(o, states=changed(o.states, -1 % len(o.states), value=None)),
        "lost",
        "before REMEMBER was over",
    ),
    "offsets behind": (last_offsets_back, "lost", "tip has committed"),
    "offsets ahead": (last_offsets_ahead, "wrong", "decision has committed"),
    "a dead letter is gone": (
        lambda o: replace(o, dead_letters=without(o.dead_letters)),
        "lost",
        "has no dead letter of it",
    ),
    "a dead letter is doubled": (
        lambda o: replace(o, dead_letters=[*o.dead_letters, o.dead_letters[0]]),
        "twice",
        "has 2 dead letters",
    ),
    "a dead letter is changed": (
        lambda o: replace(o, dead_letters=changed(o.dead_letters, raw=b"no rid")),
        "wrong",
        "is not the record as it was",
    ),
    "a dead letter of a good record": (
        lambda o: replace(o, rides=changed(o.rides, next(i for i, r in enumerate(o.rides) if r.problem), problem=None)),
        "wrong",
        "of a record that is well",
    ),
}


@pytest.mark.parametrize(("change", "kind", "what"), CHANGES.values(), ids=CHANGES)
def test_a_changed_log_is_caught(told: Observed, change: Change, kind: Kind, what: str) -> None:
    found = check(change(told), Story().promise())
    assert any(v.kind == kind and what in v.what for v in found), found


def test_at_least_once_allows_repeats_and_nothing_else(told: Observed) -> None:
    promise = replace(Story().promise(), guarantee="at_least_once")
    again = replace(
        told,
        predictions=[*told.predictions, told.predictions[0]],
        decisions=[*told.decisions, told.decisions[0]],
        dead_letters=[*told.dead_letters, told.dead_letters[0]],
    )
    assert check(again, promise) == []
    assert {v.kind for v in check(replace(told, predictions=without(told.predictions)), promise)} >= {"lost"}
    assert {v.kind for v in check(replace(told, decisions=without(told.decisions)), promise)} >= {"lost"}
    last = where(told.decisions, 1, complete=True)
    assert any(
        "was last decided" in v.what for v in check(replace(told, decisions=without(told.decisions, last)), promise)
    )


def test_without_transactions_an_older_decision_may_only_come_last_after_a_pause(told: Observed) -> None:
    promise = replace(Story().promise(), guarantee="at_least_once")
    older = told.decisions[where(told.decisions, 0, complete=False)]
    late = replace(told, decisions=[*told.decisions, older])
    assert any("was last decided" in v.what for v in check(late, promise))
    assert check(late, replace(promise, paused=True)) == []
