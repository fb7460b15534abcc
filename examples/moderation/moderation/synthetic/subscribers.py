"""Subscribers: whom they follow, what they like, and how much they were told lately.

They stand for what a service would read from its own database.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from moderation.synthetic.texts import grammar
from moderation.synthetic.uploads import UPLOADERS, uploader

SUBSCRIBERS = 2000

_SEED = 10
_FOLLOWED = 4
"""Uploaders whom a subscriber follows, on average."""


@dataclass(frozen=True)
class Subscriber:
    """A user.

    `interests` is, by category, the share of such videos that the user watched to the end, `opened` the share of the
    last notifications that the user opened, `notified` how many there were in the last week.
    """

    user_id: str
    follows: Sequence[str]
    interests: Mapping[str, float]
    opened: float
    notified: int


@cache
def subscribers() -> Sequence[Subscriber]:
    """Every subscriber."""
    rng = np.random.default_rng(_SEED)
    categories = sorted({topic.category for topic in grammar().topics})
    return [_subscriber(rng, number, categories) for number in range(SUBSCRIBERS)]


@cache
def followers() -> Mapping[str, Sequence[Subscriber]]:
    """The subscribers of each uploader who has any."""
    found: dict[str, list[Subscriber]] = defaultdict(list)
    for subscriber in subscribers():
        for followed in subscriber.follows:
            found[followed].append(subscriber)
    return dict(found)


def _subscriber(rng: np.random.Generator, number: int, categories: Sequence[str]) -> Subscriber:
    followed = rng.choice(UPLOADERS, size=min(UPLOADERS, 1 + rng.poisson(_FOLLOWED - 1)), replace=False)
    return Subscriber(
        user_id=f"user-{number:04}",
        follows=[uploader(int(one)) for one in followed],
        interests={category: float(rng.beta(0.6, 1.2)) for category in categories},
        opened=float(rng.beta(1.5, 4)),
        notified=int(rng.poisson(4)),
    )
