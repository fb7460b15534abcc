"""Who is told of a video: the likeliest of those who follow its uploader, each once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from braidstream import SettingsError
from braidstream.testing import HandlerKit
from moderation.notifications.features import Candidate
from moderation.notifications.ranking import NotificationSettings, make_handler, notification_id, notify
from moderation.pipeline import MODERATION, NOTIFICATIONS, NOTIFIED
from moderation.schemas.notification import Notification
from moderation.schemas.video_uploaded import VideoUploaded
from moderation.synthetic.subscribers import Subscriber
from moderation.tests.videos import video

Kit = HandlerKit[VideoUploaded, Notification]


def subscriber(user_id: str, interest: float) -> Subscriber:
    return Subscriber(user_id, ["channel-001"], {"food": interest}, opened=0.5, notified=0)


FOLLOWERS = {
    "channel-001": [subscriber("low", 0.1), subscriber("most", 0.9), subscriber("some", 0.5), subscriber("more", 0.7)]
}


def by_interest(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    return np.array([candidate.interest for candidate in candidates])


def kit(top: int = 10, at: float = 0.4) -> Kit:
    return HandlerKit(MODERATION, notify(by_interest, FOLLOWERS, top=top, at=at), writes=NOTIFICATIONS, once=NOTIFIED)


def told(notifications: Sequence[Notification]) -> list[tuple[str, int, float]]:
    return [(one.user_id, one.rank, one.score) for one in notifications]


def test_the_likeliest_are_told_in_the_order_of_their_scores_and_the_others_left_alone() -> None:
    assert told(kit().send(video())) == [("most", 1, 0.9), ("more", 2, 0.7), ("some", 3, 0.5)]


def test_no_more_are_told_than_the_top() -> None:
    assert told(kit(top=2).send(video())) == [("most", 1, 0.9), ("more", 2, 0.7)]


def test_of_a_video_that_nobody_is_likely_to_open_nobody_is_told() -> None:
    assert kit().send(video(category="travel")) == []


def test_of_an_uploader_whom_nobody_follows_nobody_is_told_and_the_videos_around_are_as_ever() -> None:
    notifications = kit(top=1).send(video("v1"), video("v2", uploader_id="channel-002"), video("v3"))

    assert [(one.video_id, one.user_id) for one in notifications] == [("v1", "most"), ("v3", "most")]


def test_a_video_that_comes_twice_is_told_of_once_also_after_a_crash() -> None:
    notifications = kit(top=1)

    assert len(notifications.send(video(), video())) == 1
    assert notifications.send(video()) == []
    notifications.restart(crash=True)
    assert notifications.send(video()) == []
    assert len(notifications.outputs) == 1


def test_an_id_is_that_of_the_video_and_the_user() -> None:
    first, second = kit(top=1).send(video("v1"), video("v2"))

    assert first.notification_id == notification_id("v1", "most")
    assert len({first.notification_id, second.notification_id, notification_id("v1", "more")}) == 3


def test_without_its_model_the_consumer_says_how_to_make_it(tmp_path: Path) -> None:
    settings = NotificationSettings(model_uri=str(tmp_path))

    with pytest.raises(SettingsError, match=r"python -m moderation\.notifications\.train"):
        make_handler(settings)
