"""The moderation pipeline: `video_uploaded` in, predictions and decisions out."""

from pathlib import Path

from braidstream.avro import EventType
from braidstream.pipelines import Topic, pipeline
from moderation.schemas.video_uploaded import VideoUploaded

MODERATION = pipeline(
    Topic(
        "video_uploaded", EventType.load(VideoUploaded, "video_uploaded", Path(__file__).parent / "schemas"), "video_id"
    ),
    predictions="video_predictions",
    decisions="video_decisions",
    decision_state="video_decision_state",
    dead_letters="video_dead_letters",
)
