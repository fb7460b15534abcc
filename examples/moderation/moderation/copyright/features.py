"""What the copyright model is given to see of a video: the bits of its fingerprint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from braidstream import Columns, FeatureSet, Matrix
from moderation.schemas.video_uploaded import FINGERPRINT_BITS, FINGERPRINT_BYTES, VideoUploaded


def bits(fingerprints: Sequence[bytes]) -> Matrix:
    """The bits of n fingerprints as 0 and 1, in shape (n, FINGERPRINT_BITS)."""
    octets = np.frombuffer(b"".join(fingerprints), np.uint8).reshape(-1, FINGERPRINT_BYTES)
    return np.unpackbits(octets, axis=1).astype(np.float32)


def _build(videos: Columns) -> Matrix:
    return bits(videos["fingerprint"].tolist())


FEATURES: FeatureSet[VideoUploaded] = FeatureSet(tuple(f"bit_{number}" for number in range(FINGERPRINT_BITS)), _build)

TRUSTED = ("moderation.copyright.distance.NearestDistance",)
"""The type of this package that the model is made of."""
