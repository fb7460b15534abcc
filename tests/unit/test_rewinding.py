"""`braidstream rescore`: which group may go back, how far, and what is said of the versions."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer

from braidstream.cli import main
from braidstream.cli.groups import Group, Member
from braidstream.cli.rewinding import Rewind, check_time, rewinds, running, the_group, versions
from braidstream.embedded import EmbeddedBroker, appear
from braidstream.errors import SettingsError
from braidstream.streaming.ports import Partition
from braidstream.testing.kit import PolicyKit
from decision_service.policy import RideDecisionSettings, ride_policy
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests import command_line
from tests.unit.events import NOON, ride

RIDES_0, PREDICTIONS_0 = Partition("x.ride_started", 0), Partition("x.predictions", 0)
MEMBER = Member("one", "duration", "127.0.0.1", frozenset({RIDES_0}))
DURATION = Group("x.duration", "empty", (), {RIDES_0: 10})
DECISION = Group("x.decision", "empty", (), {RIDES_0: 10, PREDICTIONS_0: 20})
WRITER = Group("x.writer", "empty", (), {PREDICTIONS_0: 20})


# Which group


@pytest.mark.parametrize("name", ["duration", "x.duration"])
def test_a_group_is_named_with_its_prefix_or_without_it(name: str) -> None:
    assert the_group([DECISION, DURATION], name, f"x.{name}", "x.ride_started") is DURATION


@pytest.mark.parametrize(
    ("groups", "name", "sentence"),
    [
        ([DURATION, DECISION, WRITER], "tip", "no group x.tip has read x.ride_started; the groups that have are: "),
        ([WRITER], "writer", "the groups that have are: none"),
        ([DECISION], "decision", "x.decision reads x.predictions too, as a decision service does"),
    ],
)
def test_other_groups_are_refused(groups: list[Group], name: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        the_group(groups, name, f"x.{name}", "x.ride_started")
    assert sentence in str(caught.value)


def test_a_group_goes_back_when_its_workers_are_stopped() -> None:
    assert running(DURATION) is None
    assert "x.duration has 1 member: stop its workers" in str(
        running(replace(DURATION, state="stable", members=(MEMBER,)))
    )
    assert "x.duration is preparing rebalancing: " in str(running(replace(DURATION, state="preparing rebalancing")))


def test_the_embedded_broker_is_refused_and_so_is_asking_without_a_terminal() -> None:
    with EmbeddedBroker() as broker:
        appear(Producer({"bootstrap.servers": broker.bootstrap_servers}), ["ride_started"])
        refused = command_line.run("rescore", "--group=duration", "--from=1h", "--yes", settings=broker.environment)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "the embedded broker keeps nothing for long" in refused.stderr
    unasked = CliRunner().invoke(main, ["rescore", "--group", "duration", "--from", "beginning"])
    assert unasked.exit_code == 2
    assert "there is no terminal to ask on" in unasked.stderr


# How far


def test_a_group_goes_back_and_never_forward() -> None:
    committed = {0: 10, 1: 10, 2: 10}
    assert rewinds(committed, {0: 4, 1: 10, 2: 11, 3: 0}) == [Rewind(0, 4, 10)]
    assert Rewind(0, 4, 1_010).as_row(NOON) == ("0", "4", "1,010", "1,006", "2026-01-01 12:00:00")


def test_a_time_of_which_records_are_deleted_is_refused() -> None:
    later = NOON + timedelta(hours=1)
    check_time(NOON, {0: 0, 1: 5}, {0: later, 1: NOON}, "ride_started")
    check_time(NOON, {0: 5}, {0: None}, "ride_started")
    with pytest.raises(SettingsError, match=r"it goes back to 2026-01-01 13:00:00 UTC\. Give a later time"):
        check_time(NOON, {0: 5, 1: 5}, {0: later, 1: NOON}, "ride_started")


def test_the_same_version_is_warned_of() -> None:
    assert versions("duration", "models/duration", "1", "2") == (
        "models/duration holds version 2; the last predictions of duration are by version 1.",
        False,
    )
    said, is_warning = versions("duration", "models/duration", "1", "1")
    assert is_warning
    assert "by version 1: the same" in said
    assert versions("duration", "models/duration", "1", None)[0].startswith("No model is at models/duration as seen")


# What becomes of decisions


def decision_service(max_open: int = 1000) -> PolicyKit[RideStarted]:
    policy = ride_policy(RideDecisionSettings())
    return PolicyKit(RIDES, policy, expected=("duration", "tip"), deadline=30, remember=3600, max_open=max_open)


def decide(kit: PolicyKit[RideStarted], ride_id: str) -> None:
    kit.event(ride(ride_id))
    kit.predict(ride_id, "duration", 7, version="old")
    kit.predict(ride_id, "tip", 2, version="old")


def test_a_complete_decision_keeps_to_the_version_that_it_was_made_with() -> None:
    kit = decision_service()
    decide(kit, "ride-1")
    assert [decision.action for decision in kit.decisions] == ["preassign"]
    assert kit.predict("ride-1", "duration", 1000, version="new") == []
    kit.restart()
    assert kit.predict("ride-1", "duration", 1000, version="newer") == []


def test_a_decision_that_missed_the_model_is_revised() -> None:
    kit = decision_service()
    kit.event(ride("ride-1"))
    kit.predict("ride-1", "tip", 2, version="old")
    [partial] = kit.advance(30)
    assert (partial.action, partial.missing) == ("review", ["duration"])
    [whole] = kit.predict("ride-1", "duration", 7, version="new")
    assert (whole.revision, whole.action, whole.complete) == (1, "preassign", True)
    assert {found.model: found.model_version for found in whole.evidence} == {"tip": "old", "duration": "new"}


def test_a_prediction_of_a_ride_that_is_forgotten_makes_no_decision_and_is_dropped_at_the_deadline() -> None:
    kit = decision_service()
    decide(kit, "ride-1")
    kit.advance(3600)
    assert kit.predict("ride-1", "duration", 7, version="new") == []
    assert kit.processor.gauges()["waiting"] == 1
    assert kit.advance(30) == []
    assert kit.processor.gauges()["waiting"] == 0


def test_too_many_of_those_hold_other_predictions_up_which_count_all_the_same() -> None:
    kit = decision_service(max_open=2)
    for number in range(2):
        kit.predict(f"forgotten-{number}", "duration", 7, version="new")
    decide(kit, "ride-1")
    assert kit.decisions == []
    [decision] = kit.advance(30)
    assert decision.complete
