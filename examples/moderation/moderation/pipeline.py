"""The moderation pipeline: `video_uploaded` in, predictions, decisions and notifications out."""

from pathlib import Path

from braidstream import EventType, Topic, changelog, pipeline
from moderation.schemas.notification import Notification
from moderation.schemas.video_uploaded import VideoUploaded

_SCHEMAS = Path(__file__).parent / "schemas"

NOTIFICATIONS = Topic("video_notifications", EventType.load(Notification, "notification", _SCHEMAS), "user_id")
NOTIFIED = changelog("video_notified")

MODERATION = pipeline(
    Topic("video_uploaded", EventType.load(VideoUploaded, "video_uploaded", _SCHEMAS), "video_id"),
    predictions="video_predictions",
    decisions="video_decisions",
    decision_state="video_decision_state",
    dead_letters="video_dead_letters",
    others=(NOTIFICATIONS, NOTIFIED),
)
