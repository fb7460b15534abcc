"""What happens in the demo: uploads all the time, and a service that is away for a while."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from braidstream import open_writer
from braidstream.demo import SLACK, Run, Show, Worker
from moderation.demo.notified import Notified
from moderation.pipeline import MODERATION
from moderation.schemas.video_uploaded import VideoUploaded

SERVICES = ("copyright", "nsfw", "violence")

_DECISIONS = "moderation.decisions"
_WITH_ALL = 0.7
_FAIL_CLOSED = 0.85
"""Shares of the uploads at which the service goes away, and at which its absence is made to fail open."""
_WAIT = 0.1
_WINDOW = 20_000
"""Videos that are sent before they are decided, at most: the embedded broker forgets what is read too late."""


@dataclass(frozen=True)
class Story:
    """Most uploads meet every service. Then one is stopped, and videos are decided without it at the deadline.

    The decision service fails closed at first, then open. Once the missing service is back, what it says revises the
    decisions. `rate` is uploads a second, `deadline` the decision service's in seconds.
    """

    run: Run
    notified: Notified
    rate: float
    deadline: float
    show: Show

    def tell(self, uploads: Sequence[VideoUploaded]) -> None:
        """Start the workers, send the uploads, and come back when everything has come of them that will."""
        first, second = round(len(uploads) * _WITH_ALL), round(len(uploads) * _FAIL_CLOSED)
        workers = list(self._workers())
        self.run.start(*workers)
        self.show.line(f"{len(workers)} workers are ready")
        self._send(uploads[:first])
        self.show.line("the violence service is stopped: what needs it is decided without it at the deadline")
        self.run.stop("moderation.violence")
        self._send(uploads[first:second])
        self.show.line("the decision service is started anew, with FAIL_OPEN=true")
        self.run.stop(_DECISIONS)
        self.run.start(self._decisions(fail_open=True))
        self._send(uploads[second:])
        self.show.line("the violence service is back: what it says now revises decisions that were made without it")
        self.run.start(_with_model("violence"))
        self.run.settle(self._everything_came, self._patience)

    def _workers(self) -> Iterator[Worker]:
        """Two workers of one service, and one of everything else."""
        for name in ("nsfw", *SERVICES):
            yield _with_model(name)
        yield self._decisions(fail_open=False)
        yield _with_model("notifications")

    def _decisions(self, *, fail_open: bool) -> Worker:
        settings = {"DECISION_DEADLINE": f"{self.deadline:g}", "FAIL_OPEN": str(fail_open).lower()}
        return Worker(_DECISIONS, settings, topics=2)

    def _send(self, uploads: Sequence[VideoUploaded]) -> None:
        """Send each when it is due, and wait until all are decided."""
        begin = time.monotonic()
        with open_writer(MODERATION.subjects, self.run.settings) as writer:
            for number, upload in enumerate(uploads):
                while (early := begin + number / self.rate - time.monotonic()) > 0:
                    self.run.look(early)
                while len(self.run.sent_at) - len(self.run.seen.decisions) >= _WINDOW:
                    self.run.look(_WAIT)
                self.run.sent_at[upload.video_id] = time.monotonic()
                writer.send(upload.model_copy(update={"uploaded_at": datetime.now(UTC)}))
        self.run.settle(lambda: len(self.run.seen.decisions) >= len(self.run.sent_at), self._patience)

    @property
    def _patience(self) -> float:
        return self.deadline + 2 * SLACK

    def _everything_came(self) -> bool:
        """Whether every video is decided on every service's prediction, and done with by the notifications."""
        sent = len(self.run.sent_at)
        decisions = self.run.seen.decisions
        return (
            len(decisions) >= sent
            and len(self.notified.videos) >= sent
            and all(revisions[-1].complete for revisions in decisions.values())
        )


def _with_model(name: str) -> Worker:
    return Worker(f"moderation.{name}", {"MODEL_URI": f"models/{name}"})
