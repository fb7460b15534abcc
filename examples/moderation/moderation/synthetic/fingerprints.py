"""Fingerprints of videos, and of the protected works that they may copy.

As PDQ's, a fingerprint is 256 bits, and the distance of two is the number of bits in which they differ. Two random ones
differ in about 128; of 4,000 random ones, the nearest to another differs in about 100. PDQ's authors take those within
31 for the same picture (https://github.com/facebook/ThreatExchange/tree/main/pdq).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moderation.schemas.video_uploaded import FINGERPRINT_BITS, FINGERPRINT_BYTES

WORKS = 4000

_LIBRARY_SEED = 20


class _Kind(NamedTuple):
    """What an upload may be to a work.

    `share` of the uploads are so, `least` to `most` of their bits differ, and a share of `infringing` of them infringe.
    """

    share: float
    least: float
    most: float
    infringing: float


_COPIES = (
    # Encoded again, scaled, or with a logo. Some of the uploaders have a licence, which no picture tells.
    _Kind(0.11, 0.0, 0.09, 0.985),
    # Cropped, mirrored, or in a frame.
    _Kind(0.04, 0.07, 0.2, 0.93),
    # The same event or stock material, filmed or cut by another.
    _Kind(0.05, 0.14, 0.36, 0.2),
)
_ORIGINAL = 0.003
"""The share of the others that infringe: of works that the library does not have."""


@cache
def library() -> NDArray[np.uint8]:
    """The fingerprints of the protected works, in shape (WORKS, FINGERPRINT_BYTES)."""
    rng = np.random.default_rng(_LIBRARY_SEED)
    return rng.integers(0, 256, (WORKS, FINGERPRINT_BYTES), np.uint8)


def make_fingerprint(rng: np.random.Generator) -> tuple[bytes, bool]:
    """The fingerprint of one more upload, and whether it infringes."""
    at = rng.random()
    for kind in _COPIES:
        if at < kind.share:
            flipped = rng.random(FINGERPRINT_BITS) < rng.uniform(kind.least, kind.most)
            work = library()[rng.integers(WORKS)]
            return (work ^ np.packbits(flipped)).tobytes(), bool(rng.random() < kind.infringing)
        at -= kind.share
    return rng.bytes(FINGERPRINT_BYTES), bool(rng.random() < _ORIGINAL)
