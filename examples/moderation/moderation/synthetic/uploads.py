"""Uploads with what is wrong with them, and what moderators said was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import numpy as np

from moderation.schemas.video_uploaded import VideoUploaded
from moderation.synthetic.fingerprints import make_fingerprint
from moderation.synthetic.texts import RULES, make_text

UPLOADERS = 300
COPYRIGHT = "copyright"

_START = datetime(2026, 1, 1, tzinfo=UTC)
_MISSED = 0.02
"""The share of violations that moderators do not see."""
_ACCUSED = 0.002
"""The share of videos that moderators find to break a rule that they do not break, of each rule."""


@dataclass(frozen=True)
class Upload:
    """A video and the rules that it breaks, of `nsfw`, `violence`, `spam` and `copyright`.

    `violations` is the truth, which nobody has. `labels` is what moderators found, mistakes included: what models are
    trained and measured with.
    """

    event: VideoUploaded
    violations: frozenset[str]
    labels: frozenset[str]


def make_uploads(count: int, seed: int) -> Iterator[Upload]:
    """Uploads in the order of time, the same for the same seed; other seeds give other videos, under other ids."""
    rng = np.random.default_rng(seed)
    at = _START
    for number in range(count):
        at += timedelta(seconds=1 + float(rng.exponential(60)))
        text = make_text(rng)
        fingerprint, infringes = make_fingerprint(rng)
        violations = text.violations | ({COPYRIGHT} if infringes else frozenset())
        event = VideoUploaded(
            video_id=blake2b(f"{seed} {number}".encode(), digest_size=8).hexdigest(),
            # A few upload much, most of them little.
            uploader_id=uploader(int(UPLOADERS * rng.random() ** 2)),
            title=text.title,
            description=text.description,
            category=text.category,
            seconds=int(np.clip(rng.lognormal(5.5, 1.0), 5, 4 * 3600)),
            fingerprint=fingerprint,
            uploaded_at=at.replace(microsecond=0),
        )
        yield Upload(event, violations, _labels(rng, violations))


def uploader(number: int) -> str:
    """The id of one of the `UPLOADERS`."""
    return f"channel-{number:03}"


def _labels(rng: np.random.Generator, violations: frozenset[str]) -> frozenset[str]:
    chances = {rule: 1 - _MISSED if rule in violations else _ACCUSED for rule in (*RULES, COPYRIGHT)}
    return frozenset(rule for rule, chance in chances.items() if rng.random() < chance)
