"""The model of a rule whose violation titles and descriptions hint at."""

from __future__ import annotations

from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from moderation.rules import rule_task
from moderation.schemas.video_uploaded import VideoUploaded
from moderation.text_features import TEXT
from moderation.training import Task


def text_task(rule: str) -> Task[VideoUploaded]:
    """TF-IDF of words and pairs of words, of title and description apart, and a calibrated logistic regression."""
    words = ColumnTransformer(
        [
            (name, TfidfVectorizer(ngram_range=(1, 2), min_df=3, sublinear_tf=True), column)
            for column, name in enumerate(TEXT.names)
        ]
    )
    calibrated = CalibratedClassifierCV(LogisticRegression(max_iter=1000), method="sigmoid", cv=3, ensemble=False)
    return rule_task(rule, TEXT, make_pipeline(words, calibrated))
