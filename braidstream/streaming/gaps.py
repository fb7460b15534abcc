"""Committed offsets whose records are gone: what is said of them, and how to go on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from braidstream.errors import FatalError
from braidstream.streaming.ports import Partition


class Gap(NamedTuple):
    """A partition that goes on at `offset`, while its records are those from `first` to right before `end`."""

    partition: Partition
    offset: int
    first: int
    end: int

    def __str__(self) -> str:
        name = f"{self.partition.topic} [{self.partition.number}]"
        if self.offset < self.first:
            return f"{name} offsets {self.offset} to {self.first - 1}"
        return f"{name} from offset {self.offset} on, though it ends at {self.end} (was it made again?)"


def error(gaps: Sequence[Gap], offsets_command: str) -> FatalError:
    """What stops a worker whose records were deleted before it read them; they are not skipped silently."""
    return FatalError(
        f"the committed offset no longer exists: deleted before they were processed, by retention or by hand, are "
        f"{'; '.join(map(str, gaps))}. Nothing was skipped. To go on without them, at the first record that is left, "
        f"stop every worker of the group, run `{reset_command(gaps, offsets_command)}`, and start them again."
    )


def reset_command(gaps: Sequence[Gap], offsets_command: str) -> str:
    """The command that makes a group go on at the first record that is left."""
    numbers: dict[str, list[str]] = defaultdict(list)
    for gap in gaps:
        numbers[gap.partition.topic].append(str(gap.partition.number))
    topics = " ".join(f"--topic {topic}:{','.join(those)}" for topic, those in numbers.items())
    return f"{offsets_command} {topics} --reset-offsets --to-earliest --execute"
