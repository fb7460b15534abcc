"""Consumers with a handler of their own: what it gives, for whom, and what it must not give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from braidstream.errors import FatalError, SettingsError
from braidstream.events import Events
from braidstream.pipelines import Topic, changelog, pipeline
from braidstream.streaming.dead_letters import raw_headers
from braidstream.streaming.handler import Handle
from braidstream.testing.kit import HandlerKit
from rides.pipeline import RIDES
from schemas.prediction import Prediction
from schemas.ride_started import RideStarted
from tests.notifications import NOTIFICATIONS, NOTIFIED, NOTIFYING, OUTSIDE, Notification, notify, users_of
from tests.unit.events import prediction, ride


def test_an_event_gives_none_one_or_several() -> None:
    kit = HandlerKit(NOTIFYING, notify, writes=NOTIFICATIONS)
    rides = [ride("none", passenger_count=0), ride("one", passenger_count=1), ride("many", passenger_count=3)]
    given = kit.send(*rides)
    assert Counter((n.ride_id, n.user_id) for n in given) == Counter((r.ride_id, u) for r in rides for u in users_of(r))
    assert kit.send(rides[1]) == [Notification(user_id="user-74", ride_id="one")]
    assert len(kit.outputs) == 5


def test_outputs_are_partitioned_by_their_own_keys_and_say_what_they_were_made_from() -> None:
    kit = HandlerKit(NOTIFYING, notify, writes=NOTIFICATIONS)
    kit.broker.send(
        "ride_started",
        key=b"ride-1",
        value=kit.encode(ride("ride-1", passenger_count=6)),
        partition=2,
        headers=[("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("other", b"x")],
    )
    kit.run()
    found = kit.broker.records("notifications")
    assert [record.key() for record in found] == [f"user-{74 + number}".encode() for number in range(6)]
    assert [record.partition() for record in found] == [kit.broker.partition_of(record.key()) for record in found]
    assert len({record.partition() for record in found}) > 1
    assert raw_headers(found[0]) == [
        ("source.topic", b"ride_started"),
        ("source.partition", b"2"),
        ("source.offset", b"0"),
        ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ]


def test_an_output_of_the_same_key_stays_on_the_partition_of_its_source() -> None:
    def predict(rides: Events[RideStarted]) -> list[list[Prediction]]:
        return [[prediction(ride.ride_id, model) for model in ("a", "b")] for ride in rides]

    kit = HandlerKit(RIDES, predict, writes=RIDES.predictions)
    partition = (kit.broker.partition_of(b"ride-1") + 1) % kit.broker.partitions
    kit.broker.send("ride_started", key=b"ride-1", value=kit.encode(ride("ride-1")), partition=partition)
    kit.run()
    assert [(p.model, p.subject_id) for p in kit.outputs] == [("a", "ride-1"), ("b", "ride-1")]
    assert {record.partition() for record in kit.broker.records("predictions")} == {partition}


def test_an_event_that_it_fails_on_is_a_dead_letter_and_the_others_go_on() -> None:
    kit = HandlerKit(NOTIFYING, notify, writes=NOTIFICATIONS)
    bad = ride("bad", pickup_zone=OUTSIDE)
    given = kit.send(*(ride(f"ride-{number}") for number in range(9)), bad, ride("last"))
    assert {n.ride_id for n in given} == {*(f"ride-{number}" for number in range(9)), "last"}
    [letter] = kit.dead_letters
    assert (letter.key, letter.value, letter.stage) == (b"bad", kit.encode(bad), "TRANSFORMATION")
    assert letter.reason == "nobody lives outside the city"


def test_an_event_whose_output_cannot_be_written_is_a_dead_letter() -> None:
    def notify_nobody(rides: Events[RideStarted]) -> list[list[Notification]]:
        return [[Notification(user_id="user", ride_id="").model_copy(update={"ride_id": 7})] for _ in rides]

    kit = HandlerKit(NOTIFYING, notify_nobody, writes=NOTIFICATIONS)
    assert kit.send(ride()) == []
    assert len(kit.dead_letters) == 1


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        (lambda rides: [[] for _ in rides[1:]], "returned 0 results for 1 events"),
        (lambda rides: ([] for _ in rides), "returned generator for 1 events"),
        (lambda rides: None, "returned NoneType for 1 events"),
        (
            lambda rides: [None for _ in rides],
            "returned NoneType for event 'ride-1': for each event it has to return a",
        ),
        (lambda rides: [prediction() for _ in rides], "returned Prediction for event 'ride-1': for each event"),
        (lambda rides: [[prediction()] for _ in rides], "event 'ride-1': notifications takes Notification"),
    ],
    ids=["too few", "generator", "nothing", "no list", "no list but an event", "another event"],
)
def test_a_handler_that_gives_something_else_stops_the_worker(handle: Callable[[Any], Any], message: str) -> None:
    kit = HandlerKit(NOTIFYING, handle, writes=NOTIFICATIONS)
    with pytest.raises(FatalError, match=message):
        kit.send(ride("ride-1"))
    assert (kit.outputs, kit.dead_letters) == ([], [])
    assert kit.broker.committed("kit") == {}


@pytest.mark.parametrize(
    ("topics", "settings", "message"),
    [
        ({"writes": Topic("elsewhere", NOTIFICATIONS.event_type, "user_id")}, {}, "writes to elsewhere, which is none"),
        ({"writes": RIDES.subjects}, {}, "writes to ride_started, which is none"),
        ({"once": changelog("elsewhere")}, {}, "kept in elsewhere, which is none"),
        ({}, {"remember": 60}, "REMEMBER does nothing: this consumer does not handle a subject once"),
        ({}, {"max_remembered": 60}, "MAX_REMEMBERED does nothing"),
    ],
    ids=["unknown topic", "its own input", "unknown changelog", "remember", "max_remembered"],
)
def test_what_cannot_be_done_is_refused(topics: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    handle: Handle[RideStarted, Any] = notify
    with pytest.raises(SettingsError, match=message):
        HandlerKit(NOTIFYING, handle, **{"writes": NOTIFICATIONS, **topics}, **settings)


def test_two_topics_of_one_name_are_refused() -> None:
    with pytest.raises(SettingsError, match="two topics of the pipeline are named predictions"):
        pipeline(RIDES.subjects, others=(changelog("predictions"),))


def test_further_topics_are_topics_of_the_pipeline() -> None:
    assert NOTIFYING.topics[-2:] == (NOTIFICATIONS, NOTIFIED)
    assert NOTIFIED.config["cleanup.policy"] == "compact"
