"""Are the topics there, and as they have to be?"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from braidstream.doctor.case import Case
from braidstream.doctor.findings import Finding, ok, warning, wrong
from braidstream.errors import SettingsError
from braidstream.streaming import topics
from braidstream.streaming.topics import TopicSpec

CHECK = "topics"

_LATELY = timedelta(hours=1)

Configs = Mapping[str, Mapping[str, str]]
"""Settings of topics by name."""


def examine(case: Case, metadata: Any, configs: Configs) -> Iterator[Finding]:
    """Topics that are missing, wrong numbers of partitions, and settings; without `configs` those are not looked at."""
    there = {name: metadata.topics[name] for name in case.topics if name in metadata.topics}
    there = {name: topic for name, topic in there.items() if topic.error is None}
    replicas = {name: min(len(at.replicas) for at in topic.partitions.values()) for name, topic in there.items()}
    specs = [spec for spec in topics.specs(case.pipeline, case.settings) if spec.name in configs]
    if not there and (prefixes := _prefixes(case, metadata.topics)):
        prefix, setting = case.settings.topic_prefix, f"export TOPIC_PREFIX={shlex.quote(prefixes[0])}"
        named = ", ".join(map(repr, prefixes))
        yield wrong(
            CHECK, f"none has the TOPIC_PREFIX {prefix!r}; those of the pipeline are there with {named}", setting
        )
        return
    found = [*_shape(case, there, is_fixed=not configs), *_settings(case, specs, configs, replicas)]
    yield from found or [
        ok(CHECK, f"all {len(case.topics)} are there, with {len(there[case.topics[0]].partitions)} partitions each")
    ]


def _prefixes(case: Case, there: Collection[str]) -> list[str]:
    """With which prefixes all topics of the pipeline are there."""
    names = [name.removeprefix(case.settings.topic_prefix) for name in case.topics]
    prefixes = {name.removesuffix(names[0]) for name in there if name.endswith(names[0])}
    return sorted(prefix for prefix in prefixes if all(f"{prefix}{name}" in there for name in names))


def _shape(case: Case, there: Mapping[str, Any], *, is_fixed: bool) -> Iterator[Finding]:
    if missing := [name for name in case.topics if name not in there]:
        yield wrong(CHECK, f"missing: {', '.join(missing)}", case.command("topics create"))
    counts = {name: len(topic.partitions) for name, topic in there.items()}
    if not counts:
        return
    wanted = case.settings.partitions
    usual = max(counts.values(), key=lambda count: (list(counts.values()).count(count), count == wanted))
    others = {name: count for name, count in counts.items() if count != usual}
    if usual != wanted and not is_fixed:
        yield wrong(
            CHECK,
            f"{'most' if others else 'all'} topics have {usual} partitions, and PARTITIONS is {wanted}: programs "
            "refuse to start",
            f"export PARTITIONS={usual}",
        )
    for name, count in others.items():
        yield wrong(
            CHECK,
            f"topic {name} has {count} partitions where the others have {usual}: all need the same number. Deleting it "
            "deletes its records; stop what writes and reads it before, and start that after",
            case.kafka("topics", f"--delete --topic {name}"),
            case.command("topics create"),
        )


def _settings(case: Case, specs: list[TopicSpec], found: Configs, replicas: Mapping[str, int]) -> Iterator[Finding]:
    """Settings under which records would be lost or refused; `replicas` are how many each topic has."""
    for spec in specs:
        try:
            topics.check_config(spec, found, case.settings)
        except SettingsError as error:
            yield wrong(CHECK, str(error), case.set_topic(spec.name, _mended(spec, found, case)))
        # Brokers other than Kafka do not have it.
        least = int(found[spec.name].get("min.insync.replicas", 1))
        if least > replicas[spec.name]:
            yield wrong(
                CHECK,
                f"topic {spec.name} has min.insync.replicas={least} and {replicas[spec.name]} replicas: nothing can be "
                "written to it",
                case.set_topic(spec.name, f"min.insync.replicas={replicas[spec.name]}"),
            )


def _mended(spec: TopicSpec, found: Configs, case: Case) -> str:
    """The setting that `check_config` misses."""
    policy = spec.config.get("cleanup.policy")
    if policy not in (None, found[spec.name]["cleanup.policy"]):
        return f"cleanup.policy={policy}"
    return f"{topics.MAX_BYTES}={topics.least_max_bytes(spec, found, case.settings)}"


def elsewhere(case: Case, written: Mapping[str, datetime], now: datetime) -> Iterator[Finding]:
    """Where the subjects go while the topic here is empty; `written` says when topics of their name were written to."""
    bare = case.pipeline.subjects.name
    others = {topic: at for topic, at in written.items() if now - at < _LATELY}
    if others:
        latest = max(others, key=lambda topic: others[topic])
        yield warning(
            CHECK,
            f"{case.settings.named(bare)} has no records, and {latest} has, of the last hour: have producer and "
            "workers the same TOPIC_PREFIX?",
            f"export TOPIC_PREFIX={shlex.quote(latest.removesuffix(bare))}",
        )
