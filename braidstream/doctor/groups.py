"""Do the groups have members, and do they keep up?"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from braidstream.cli.groups import Group, Lag, Snapshot
from braidstream.cli.lag_views import span
from braidstream.doctor.case import Case
from braidstream.doctor.findings import Finding, count, ok, warning, wrong
from braidstream.doctor.topics import Configs
from braidstream.streaming.gaps import reset_command

CHECK = "groups"

_LATE = 60.0
"""Seconds behind from which more workers are called for."""

_OLD = 10.0
"""Seconds that a record may wait in a batch."""

_WEEK = 7 * 24 * 3600 * 1000


def examine(case: Case, before: Snapshot, after: Snapshot) -> Iterator[Finding]:
    """What is wrong with each group, seen twice a few seconds apart."""
    if not after.groups:
        yield warning(CHECK, "no group has read the topics: no worker has started yet")
    for group in after.groups:
        rows = [row for row in after.lags if row.group == group.name]
        found = [*_gaps(case, rows), *_members(case, group, rows, after), *_progress(case, group, rows, before, after)]
        yield from found or [_well(group, rows, after)]


def may_be_stuck(seen: Snapshot) -> bool:
    """Whether a second look says more: records wait for members."""
    members = {group.name: group.members for group in seen.groups}
    return any(members[row.group] and row.seconds(seen.at) > _OLD for row in seen.lags)


def _well(group: Group, rows: Sequence[Lag], seen: Snapshot) -> Finding:
    behind = max((row.seconds(seen.at) for row in rows), default=0.0)
    state = f"is {span(behind)} behind" if behind else "nothing waits for it"
    return ok(CHECK, f"{group.name} has {count(len(group.members or ()), 'member')}, and {state}")


def _gaps(case: Case, rows: Sequence[Lag]) -> Iterator[Finding]:
    if gaps := [row.gap for row in rows if row.gap is not None]:
        yield wrong(
            CHECK,
            f"{rows[0].group} goes on from records that are gone, deleted before they were processed: "
            f"{'; '.join(map(str, gaps))}. Its workers stop there. To go on without them, at the first record that is "
            "left, with all its workers stopped:",
            reset_command(gaps, case.kafka("consumer-groups", f"--group {shlex.quote(rows[0].group)}")),
        )


def _members(case: Case, group: Group, rows: Sequence[Lag], seen: Snapshot) -> Iterator[Finding]:
    if not group.members:
        yield _deserted(case, group, rows, seen)
    idle = sum(not member.partitions for member in group.members or ())
    most = max(Counter(row.partition.topic for row in rows).values(), default=0)
    # While partitions are given out, nobody has any.
    if 0 < idle < (members := len(group.members or ())) and most < members:
        yield warning(
            CHECK,
            f"of the {members} members of {group.name}, {idle} without partitions: no topic that it reads has more "
            f"than {most}, so stop as many",
        )


def _deserted(case: Case, group: Group, rows: Sequence[Lag], seen: Snapshot) -> Finding:
    reads_subjects = case.settings.named(case.pipeline.subjects.name) in group.topics
    waiting = sum(row.records for row in rows)
    longest = span(max((row.seconds(seen.at) for row in rows), default=0.0))
    said = f"{group.name} has no members, and " + (
        f"{count(waiting, 'record')} wait, the first for {longest}" if waiting else "nothing waits yet"
    )
    if not reads_subjects:
        # No command to type: a group that is about to start looks the same, and its place would be lost.
        delete = case.kafka("consumer-groups", f"--delete --group {shlex.quote(group.name)}")
        return warning(CHECK, f"{said}. It is to be started, or, if it is not to run any more, deleted: {delete}")
    start = f"{said}: start its workers; if they end again, their logs say why"
    return (wrong if waiting else warning)(CHECK, start, *case.start(group.name))


def _progress(case: Case, group: Group, rows: Sequence[Lag], before: Snapshot, after: Snapshot) -> Iterator[Finding]:
    if not group.members:
        return
    earlier = {row.partition: row.committed for row in before.lags if row.group == group.name and row.records}
    for topic, those in groupby(rows, key=lambda row: row.partition.topic):
        late = [row for row in those if row.records and row.gap is None and row.seconds(after.at) > _OLD]
        stuck = [row.partition.number for row in late if earlier.get(row.partition, -1) == row.committed]
        behind = max((row.seconds(after.at) for row in late), default=0.0)
        if stuck:
            yield warning(
                CHECK,
                f"{group.name} did not move for {(after.at - before.at).total_seconds():.0f} s in partitions {stuck} "
                f"of {topic}, where records wait for {span(behind)}: its workers' logs, and `braidstream health` "
                "beside them, say why",
            )
        elif behind > _LATE:
            partitions = sum(partition.topic == topic for partition in (row.partition for row in rows))
            room = len(group.members) < partitions
            yield warning(
                CHECK,
                f"{group.name} is {span(behind)} behind in {topic}"
                + (
                    f": up to {partitions} workers have something to do, and it has {len(group.members)}"
                    if room
                    else ""
                ),
                *(case.start(group.name) if room else ()),
            )


def retention(case: Case, seen: Snapshot, configs: Configs) -> Iterator[Finding]:
    """Records that are deleted before they are processed, when it goes on like this."""
    for group, topic, rows in seen.by_topic():
        config = configs.get(topic, {})
        kept = int(config.get("retention.ms", -1)) / 1000 if "delete" in config.get("cleanup.policy", "") else -1
        age = max(row.seconds(seen.at) for row in rows)
        if 0 < kept < 2 * age:
            yield warning(
                CHECK,
                f"{topic} keeps records for {span(kept)}, and the first that {group.name} has not processed is "
                f"{span(age)} old: it may be deleted before",
                case.set_topic(topic, f"retention.ms={max(_WEEK, int(4000 * age))}"),
            )
