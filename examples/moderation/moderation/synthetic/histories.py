"""Who was told of which video, and opened it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from moderation.schemas.video_uploaded import VideoUploaded
from moderation.synthetic.subscribers import Subscriber, followers
from moderation.synthetic.uploads import make_uploads

_TOLD = 4
"""Subscribers who were told of each video, at random."""


class Told(NamedTuple):
    """A subscriber who was told of a video."""

    subscriber: Subscriber
    video: VideoUploaded
    opened: bool


def make_histories(videos: int, seed: int) -> Iterator[Told]:
    """Whom so many videos were made known to, in the order of time; the same for the same seed."""
    rng = np.random.default_rng(seed)
    for upload in make_uploads(videos, seed):
        known = followers().get(upload.event.uploader_id, ())
        for chosen in rng.permutation(len(known))[:_TOLD]:
            subscriber = known[chosen]
            opened = rng.random() < _chance(rng, subscriber, upload.event)
            yield Told(subscriber, upload.event, bool(opened))


def _chance(rng: np.random.Generator, subscriber: Subscriber, video: VideoUploaded) -> float:
    """Opening follows interest and habit, and a mood that nothing tells; who is told too often stops looking."""
    wish = 3.2 * subscriber.interests[video.category] + 3.0 * subscriber.opened - 0.25 * subscriber.notified
    return float(1 / (1 + np.exp(2.2 - wish + 0.001 * min(video.seconds, 1200) - rng.normal(0, 0.8))))
