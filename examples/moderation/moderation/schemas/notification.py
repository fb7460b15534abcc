"""`notification`: who is to be told of a video."""

from typing import Annotated

from annotated_types import Ge, Le
from pydantic import Field

from braidstream import Event


class Notification(Event):
    """One user is to be told of one video; `rank` 1 is who is most likely to open it, with probability `score`."""

    notification_id: str = Field(min_length=1, max_length=128)
    user_id: str = Field(min_length=1, max_length=128)
    video_id: str = Field(min_length=1, max_length=128)
    rank: Annotated[int, Ge(1), Le(2**31 - 1)]
    score: Annotated[float, Ge(0), Le(1)]
