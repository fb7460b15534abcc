"""What the notification model is given to see of a subscriber and a video."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from braidstream import Columns, Event, FeatureSet, Matrix
from moderation.schemas.video_uploaded import VideoUploaded
from moderation.synthetic.subscribers import Subscriber

Share = Annotated[float, Ge(0), Le(1)]


class Candidate(Event):
    """A subscriber who may be told of a video; the fields are as in `Subscriber`, `interest` for its category."""

    interest: Share
    opened: Share
    notified: Annotated[int, Ge(0)]
    seconds: Annotated[int, Ge(1)]


def candidate(subscriber: Subscriber, video: VideoUploaded) -> Candidate:
    """A subscriber, with regard to a video."""
    return Candidate(
        interest=subscriber.interests.get(video.category, 0.0),
        opened=subscriber.opened,
        notified=subscriber.notified,
        seconds=video.seconds,
    )


def _build(candidates: Columns) -> Matrix:
    return np.column_stack(
        (candidates["interest"], candidates["opened"], candidates["notified"], np.log(candidates["seconds"]))
    ).astype(np.float32)


FEATURES: FeatureSet[Candidate] = FeatureSet(("interest", "opened", "notified", "log_seconds"), _build)
