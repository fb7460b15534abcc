"""What the notifications consumer has written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from moderation.schemas.notification import Notification


@dataclass
class Notified:
    """Who was told of which video, how often, and the videos that the consumer is done with."""

    told: Counter[tuple[str, str]] = field(default_factory=Counter)
    videos: set[str] = field(default_factory=set)

    def notification(self, event: Notification) -> None:
        """A user is told of a video."""
        self.told[event.video_id, event.user_id] += 1
