"""Do decisions wait for the models that there are, and only for those?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from typing import Any

from braidstream.cli.groups import Group
from braidstream.doctor.case import Case
from braidstream.doctor.findings import Finding, ok, warning, wrong

CHECK = "decisions"


def waiting(case: Case, groups: Sequence[Group], models: Collection[str]) -> Iterator[Finding]:
    """Expected models that nobody serves, and served ones that nobody waits for; `models` are those in `models/`."""
    subjects, predictions = (case.settings.named(t.name) for t in (case.pipeline.subjects, case.pipeline.predictions))
    members = {group.name: group.members for group in groups}
    deciders = {group.name for group in groups if {subjects, predictions} <= group.topics}
    if not deciders:
        yield warning(CHECK, f"no decision service has started: no group reads both {subjects} and {predictions}")
    if not any(members[name] for name in deciders):
        return
    expected = case.settings.expected_models
    for model in expected or sorted(models):
        group = case.settings.named(model)
        # Of a group that has no members any more, the check of groups tells.
        if not members.get(group) and (expected or group not in members):
            yield _unserved(case, model)
    unexpected = [
        model for model in sorted({*models}.difference(expected or models)) if members.get(case.settings.named(model))
    ]
    if unexpected:
        yield warning(
            CHECK,
            f"decisions do not wait for {', '.join(unexpected)}, served by workers: start the decision service with",
            f"export EXPECTED_MODELS={','.join((*expected, *unexpected))}",
        )


def _unserved(case: Case, model: str) -> Finding:
    start = case.start(model)
    if case.settings.expected_models:
        said = f"decisions wait for {model} (EXPECTED_MODELS) until their deadline, and no worker serves it"
        return wrong(CHECK, said, *start)
    return warning(CHECK, f"there is a model {model}, and no worker serves it", *start)


def unreadable(reasons: Sequence[str]) -> Iterator[Finding]:
    """Records of late that cannot be decoded here, with the reasons."""
    if reasons:
        yield warning(
            CHECK, f"{len(reasons):,} of the last records cannot be read here, the last one since {reasons[-1]}"
        )


def partial(case: Case, decisions: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    """First decisions of late that were made at their deadline, without a prediction."""
    first = [decision for decision in decisions if decision["revision"] == 0]
    # A policy that knows enough decides before the others have answered.
    partial = [decision for decision in first if not decision["complete"]]
    deadline = timedelta(seconds=case.settings.decision_deadline)
    late = [decision for decision in partial if decision["decided_at"] - decision["opened_at"] >= deadline]
    if late:
        missing = Counter(model for decision in late for model in decision["missing"])
        models = ", ".join(f"{model} in {times:,}" for model, times in missing.most_common())
        yield warning(
            CHECK,
            f"{len(late):,} of the last {len(first):,} decisions were made at their deadline, the last at "
            f"{max(decision['decided_at'] for decision in late):%H:%M:%S} UTC; missing is {models}: was its worker "
            "behind, or gone?",
            case.command("lag"),
        )
    elif first:
        early = f", or made before the deadline ({case.settings.decision_deadline:g} s)" if partial else ""
        yield ok(CHECK, f"the last {len(first):,} looked at were complete{early}")
    elif decisions:
        yield ok(CHECK, f"the last {len(decisions):,} are revisions of earlier ones, which were not looked at")
