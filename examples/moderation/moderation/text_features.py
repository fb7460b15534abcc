"""What models of text are given to see of a video."""

from __future__ import annotations

import numpy as np

from braidstream import Columns, FeatureSet, Matrix
from moderation.schemas.video_uploaded import VideoUploaded


def _build(videos: Columns) -> Matrix:
    return np.column_stack((videos["title"], videos["description"]))


TEXT: FeatureSet[VideoUploaded] = FeatureSet(("title", "description"), _build, kind="text")
