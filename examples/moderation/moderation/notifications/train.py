"""`python -m moderation.notifications.train`: train the model of the probability that a subscriber opens a video."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from moderation.notifications.features import FEATURES, Candidate, candidate
from moderation.notifications.ranking import NOTIFY_AT
from moderation.synthetic.histories import make_histories
from moderation.training import Examples, Task, training_command

VIDEOS = 5000
SEED = 3


def _examples() -> Examples[Candidate]:
    told = list(make_histories(VIDEOS, SEED))
    candidates = [candidate(one.subscriber, one.video) for one in told]
    opened = np.array([one.opened for one in told], np.float64)
    return Examples(candidates, opened, told[0].video.uploaded_at, told[-1].video.uploaded_at)


NOTIFICATIONS = Task(
    name="notifications",
    features=FEATURES,
    estimator=make_pipeline(StandardScaler(), LogisticRegression()),
    examples=_examples,
    precision={"notify": 0.5},
    configured={"notify": NOTIFY_AT},
)

main = training_command(NOTIFICATIONS)

if __name__ == "__main__":
    main(prog_name="python -m moderation.notifications.train")
