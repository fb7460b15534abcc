"""The rules that a video may break, as something to be learned from what moderators found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import numpy as np

from braidstream import FeatureSet
from moderation.decisions.policy import REMOVE_AT, REVIEW_AT
from moderation.schemas.video_uploaded import VideoUploaded
from moderation.synthetic.uploads import Upload, make_uploads
from moderation.training import Examples, Task

UPLOADS = 30_000
SEED = 1
"""Of the uploads that models learn from; other seeds give other uploads."""
PRECISION: Mapping[str, float] = MappingProxyType({"remove": 0.95, "review": 0.7})
"""The share of the videos at or above a threshold that break the rule."""


def rule_task(
    rule: str,
    features: FeatureSet[VideoUploaded],
    estimator: Any,
    *,
    precision: Mapping[str, float] = PRECISION,
    trusted: Sequence[str] = (),
) -> Task[VideoUploaded]:
    """The model of the probability that a video breaks a rule."""
    configured = {"remove": REMOVE_AT[rule], "review": REVIEW_AT[rule]}
    return Task(rule, features, estimator, partial(_examples, rule), precision, configured, trusted)


@cache
def _uploads() -> Sequence[Upload]:
    return list(make_uploads(UPLOADS, SEED))


def _examples(rule: str) -> Examples[VideoUploaded]:
    events = [upload.event for upload in _uploads()]
    target = np.array([rule in upload.labels for upload in _uploads()], np.float64)
    return Examples(events, target, events[0].uploaded_at, events[-1].uploaded_at)
