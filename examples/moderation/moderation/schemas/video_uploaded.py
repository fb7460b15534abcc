"""`video_uploaded`: what is known of a video when it is uploaded."""

from typing import Annotated

from annotated_types import Ge, Le
from pydantic import AwareDatetime, Field

from braidstream import Event

FINGERPRINT_BITS = 256
FINGERPRINT_BYTES = FINGERPRINT_BITS // 8


class VideoUploaded(Event):
    """A video was uploaded.

    `fingerprint` is a perceptual hash of 256 bits, as PDQ's: hashes of the same picture differ in few of them.
    """

    video_id: str = Field(min_length=1, max_length=128)
    uploader_id: str = Field(min_length=1, max_length=128)
    title: str = Field(max_length=200)
    description: str = Field(max_length=5000)
    category: str = Field(max_length=64)
    seconds: Annotated[int, Ge(1), Le(2**31 - 1)]
    fingerprint: bytes = Field(min_length=FINGERPRINT_BYTES, max_length=FINGERPRINT_BYTES)
    uploaded_at: AwareDatetime
