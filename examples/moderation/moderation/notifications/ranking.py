"""Whom to tell of a video, and whom to leave alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from braidstream import Events, HandlerSettings, Scorer, load_model
from moderation.notifications.features import FEATURES, Candidate, candidate
from moderation.schemas.notification import Notification
from moderation.schemas.video_uploaded import VideoUploaded
from moderation.synthetic.subscribers import Subscriber, followers

NOTIFY_AT = 0.33
"""Measured: `python -m moderation.notifications.train` chooses the lowest at which half of those told open it."""

Handle = Callable[[Events[VideoUploaded]], Sequence[Sequence[Notification]]]


class NotificationSettings(HandlerSettings):
    """What the notification consumer needs beside a handler's settings."""

    model_uri: str = Field("models/notifications", description="The model to rank by: a folder.")
    notify_top: int = Field(5, ge=1, description="Most subscribers who are told of a video.")
    notify_at: float = Field(
        NOTIFY_AT, ge=0, le=1, description="Probability of opening the video below which a subscriber is left alone."
    )


def make_handler(settings: NotificationSettings) -> Handle:
    """The handler by the model of the settings; raises `SettingsError` when it cannot be loaded."""
    model = load_model(settings.model_uri, train_with="python -m moderation.notifications.train")
    return notify(Scorer(model, FEATURES), followers(), top=settings.notify_top, at=settings.notify_at)


def notify(
    score: Callable[[Sequence[Candidate]], NDArray[np.float64]],
    subscribers: Mapping[str, Sequence[Subscriber]],
    *,
    top: int,
    at: float,
) -> Handle:
    """A handler that tells, of each video, its `top` likeliest subscribers whose score is `at` least `at`.

    `subscribers` are those of each uploader.
    """

    def handle(videos: Events[VideoUploaded]) -> Sequence[Sequence[Notification]]:
        audiences = [subscribers.get(video.uploader_id, ()) for video in videos]
        scores = score([candidate(one, video) for video, known in zip(videos, audiences, strict=True) for one in known])
        ends = np.cumsum([len(known) for known in audiences])
        return [
            _chosen(video, known, part, top, at)
            for video, known, part in zip(videos, audiences, np.split(scores, ends[:-1]), strict=True)
        ]

    return handle


def _chosen(
    video: VideoUploaded, known: Sequence[Subscriber], scores: NDArray[np.float64], top: int, at: float
) -> Sequence[Notification]:
    likeliest = np.argsort(-scores, kind="stable")[:top]
    return [
        Notification(
            notification_id=notification_id(video.video_id, known[row].user_id),
            user_id=known[row].user_id,
            video_id=video.video_id,
            rank=rank,
            score=float(scores[row]),
        )
        for rank, row in enumerate(likeliest, 1)
        if scores[row] >= at
    ]


def notification_id(video_id: str, user_id: str) -> str:
    """The same for the same video and user."""
    return blake2b(f"{video_id}\0{user_id}".encode(), digest_size=16).hexdigest()
