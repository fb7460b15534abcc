"""The steps of a replay, as they are told before they are taken, and taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from braidstream.cli.letter_views import reason
from braidstream.cli.letters import LetterBox, Replayed, Selection
from braidstream.cli.records import printable, to_seconds
from braidstream.cli.tables import short
from braidstream.streaming.replay import Letter, Place, obstacle


class Step(NamedTuple):
    """What becomes of one dead letter: it is sent back unless `left_out` says why not."""

    place: Place
    letter: Letter | None
    left_out: str | None
    was_sent: bool

    @property
    def is_obstacle(self) -> bool:
        """Whether it cannot be sent back, other than because it was."""
        return self.left_out is not None and not self.was_sent

    def __str__(self) -> str:
        letter = self.letter
        if letter is None or self.left_out is not None:
            return f"{self.place}  left out: {short(str(self.left_out))}"
        attempt = (letter.attempts or 0) + 1
        return (
            f"{self.place}  to {letter.topic} [{letter.partition}] for {printable(letter.group)}, attempt {attempt}: "
            f"{short(reason(letter))}"
        )


class Plan:
    """Decides about the dead letters that a selection takes; `partitions` and `max_attempts` as in `obstacle`."""

    def __init__(self, box: LetterBox, selection: Selection, partitions: Mapping[str, int], max_attempts: int) -> None:
        self._box = box
        self._selection = selection
        self._partitions = partitions
        self._max_attempts = max_attempts

    def steps(self, replayed: Replayed) -> Iterator[Step]:
        """A step for each, when these were sent back already; and for each place at which there is nothing."""
        missing = set(self._selection.places)
        for letter in filter(self._selection.takes, self._box.letters()):
            missing.discard(letter.place)
            if was_sent := letter.place in replayed:
                left_out: str | None = f"it was sent back already, at {to_seconds(replayed[letter.place])} UTC"
            else:
                left_out = obstacle(letter, self._partitions, self._max_attempts)
            yield Step(letter.place, letter, left_out, was_sent)
        for place in sorted(missing):
            yield Step(place, None, "there is no dead letter, or the other filters leave it out", was_sent=False)


class Outlook:
    """What a replay comes to: how many go where and for whom, how many were sent before, and what cannot be sent."""

    def __init__(self) -> None:
        self.aims: Counter[tuple[str, str]] = Counter()
        self.sent_before = 0
        self.obstacles = 0

    def add(self, step: Step) -> None:
        """Take one more step into account."""
        if step.was_sent:
            self.sent_before += 1
        elif step.letter is None or step.left_out is not None:
            self.obstacles += 1
        else:
            self.aims[step.letter.topic, step.letter.group] += 1

    @property
    def to_send(self) -> int:
        """How many are sent back."""
        return self.aims.total()

    def lines(self) -> Iterator[str]:
        """The sums, in words."""
        for (topic, group), count in sorted(self.aims.items()):
            yield f"{count} to be sent back to {topic} for {printable(group)}"
        if self.sent_before:
            yield f"{self.sent_before} left out: sent back already"
        if self.obstacles:
            yield f"{self.obstacles} left out: cannot be sent back"
        if not self.aims:
            yield "Nothing to be sent back."
