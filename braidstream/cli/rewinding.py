"""Where the group of a model goes back to, so that its workers score again what they have scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from braidstream.cli.groups import Group
from braidstream.cli.records import to_seconds
from braidstream.errors import SettingsError

COLUMNS: Sequence[str] = ("PARTITION", "FROM", "TO", "RECORDS", "WRITTEN SINCE (UTC)")


class Rewind(NamedTuple):
    """One partition: offsets from `start` to before `committed` are read again."""

    number: int
    start: int
    committed: int

    @property
    def records(self) -> int:
        """How many they are, at most: markers of transactions have offsets too."""
        return self.committed - self.start

    def as_row(self, since: datetime | None) -> tuple[str, ...]:
        """One text for each of `COLUMNS`; `since` is when the first of the records was written."""
        return str(self.number), f"{self.start:,}", f"{self.committed:,}", f"{self.records:,}", to_seconds(since)


def rewinds(committed: Mapping[int, int], starts: Mapping[int, int]) -> list[Rewind]:
    """What goes back, by partition number: never forward, over what was not scored yet."""
    return [Rewind(n, starts[n], offset) for n, offset in sorted(committed.items()) if starts[n] < offset]


def the_group(groups: Iterable[Group], name: str, named: str, subjects: str) -> Group:
    """The group of this name, or of this name with TOPIC_PREFIX (`named`), that is to go back in the subjects' topic.

    Raises `SettingsError` when there is none, and when it reads other topics too.
    """
    by_name = {group.name: group for group in groups if subjects in group.topics}
    group = by_name.get(named) or by_name.get(name)
    if group is None:
        there = ", ".join(sorted(by_name)) or "none"
        raise SettingsError(f"no group {named} has read {subjects}; the groups that have are: {there}")
    if others := group.topics - {subjects}:
        raise SettingsError(
            f"{group.name} reads {', '.join(sorted(others))} too, as a decision service does: its offsets belong with "
            "its changelog, and only the group of a model can go back"
        )
    return group


def running(group: Group) -> str | None:
    """Why a group cannot go back for now; None when all of its workers are stopped."""
    if not group.members and group.state in ("empty", "dead", "unknown"):
        return None
    count = len(group.members or ())
    state = f"has {count} member{'s' * (count > 1)}" if count else f"is {group.state}"
    return f"{group.name} {state}: stop its workers first; one that was killed is a member for 10 s more"


def check_time(
    since: datetime, starts: Mapping[int, int], oldest: Mapping[int, datetime | None], subjects: str
) -> None:
    """Raises `SettingsError` when records of that time are deleted already.

    `starts` are the first offsets that are still there, `oldest` the times of the records at them.
    """
    gone = [at for number, at in oldest.items() if starts[number] > 0 and at is not None and at > since]
    if gone:
        raise SettingsError(
            f"{subjects} has not all of that time any more, since older records were deleted: it goes back to "
            f"{to_seconds(max(gone))} UTC. Give a later time, or --from beginning for all that is there"
        )


def versions(group: str, model: str, last: str, found: str | None) -> tuple[str, bool]:
    """What to say of the version that wrote last, and of the one `found` at `model`; and whether that is a warning."""
    written = f"the last predictions of {group} are by version {last}"
    if found is None:
        return f"No model is at {model} as seen from here; {written}: its workers have to be given another.", False
    if found != last:
        return f"{model} holds version {found}; {written}.", False
    return (
        f"{model} holds version {found}, and {written}: the same. The predictions would have the ids that there are, "
        "and decisions ignore them. Put a new version there before its workers start."
    ), True
