"""Videos to test with."""

from datetime import UTC, datetime

from moderation.schemas.video_uploaded import VideoUploaded

EXAMPLE = VideoUploaded(
    video_id="v1",
    uploader_id="channel-001",
    title="Ramen in 30 minutes",
    description="The recipe is from my grandmother.",
    category="food",
    seconds=300,
    fingerprint=bytes(range(32)),
    uploaded_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def video(video_id: str = "v1", **fields: object) -> VideoUploaded:
    """A harmless video, with these fields changed."""
    return EXAMPLE.model_copy(update={"video_id": video_id, **fields})
