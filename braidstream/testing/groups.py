"""The consumer groups of the fake broker: members, generations, and who owns what."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from confluent_kafka import KafkaError

from braidstream.streaming.ports import Partition

NO_GENERATION = -1

_member_ids = count(1)


class GroupMetadata(NamedTuple):
    """What `consumer_group_metadata` gives."""

    group: str
    member_id: str
    generation: int


@dataclass(eq=False)
class Member:
    """One consumer in a group. `assigned` is what the group counts as its own until it gives it back."""

    topics: tuple[str, ...]
    id: str = field(default_factory=lambda: f"member-{next(_member_ids):04d}")
    generation: int = NO_GENERATION
    assigned: set[Partition] = field(default_factory=set)


class Group:
    """Assigns by range. A change of members begins a round; it ends when every member has been heard.

    With eager members everything was given back by then. With others, what moves from one member to another is given
    back after the round, and a further round gives it to its new owner.
    """

    def __init__(self, name: str, partitions: int) -> None:
        self.name = name
        self.offsets: dict[Partition, int] = {}
        self.generation = 0
        self._partitions = partitions
        self._members: dict[str, Member] = {}
        self._heard: set[str] | None = None
        self._targets: dict[str, set[Partition]] = {}

    def __contains__(self, member: Member) -> bool:
        return member.id in self._members

    def join(self, member: Member) -> None:
        """A new member: a round begins."""
        self._members[member.id] = member
        self.begin_round()

    def leave(self, member: Member) -> None:
        """A member went, or was not heard of for too long: a round begins."""
        if self._members.pop(member.id, None) is not None:
            self.begin_round()

    def begin_round(self) -> None:
        """Every member has to be heard (again)."""
        self._heard = set()

    def waits_for(self, member: Member) -> bool:
        """Whether a round is under way that has not heard this member."""
        return self._heard is not None and member.id not in self._heard

    def hear(self, member: Member) -> None:
        """A member takes part in the round; the last one ends it."""
        assert self._heard is not None
        self._heard.add(member.id)
        if self._heard >= self._members.keys():
            self._heard = None
            self.generation += 1
            self._targets = self._assign_ranges()

    def news_for(self, member: Member) -> set[Partition] | None:
        """What a member owns from now on; None when it knows."""
        if self._heard is not None or member.generation == self.generation:
            return None
        others = (other.assigned for other in self._members.values() if other is not member)
        return self._targets[member.id] - set().union(*others)

    def refusal(self, metadata: GroupMetadata, *, transactional: bool) -> int | None:
        """The error code for offsets with this metadata; None when they are accepted.

        Of a consumer that is no member they are, in a transaction, and in a group without members.
        """
        if metadata.generation == NO_GENERATION:
            return None if transactional or not self._members else KafkaError.UNKNOWN_MEMBER_ID
        if metadata.member_id not in self._members:
            return KafkaError.UNKNOWN_MEMBER_ID
        return None if metadata.generation == self.generation else KafkaError.ILLEGAL_GENERATION

    def _assign_ranges(self) -> dict[str, set[Partition]]:
        targets: dict[str, set[Partition]] = {member_id: set() for member_id in self._members}
        for topic in {topic for member in self._members.values() for topic in member.topics}:
            readers = sorted(member.id for member in self._members.values() if topic in member.topics)
            for number in range(self._partitions):
                targets[readers[number * len(readers) // self._partitions]].add(Partition(topic, number))
        return targets
