"""Scoring by other frameworks, beside ours: the same rides, the same model, the same measuring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import click

from bench.arena import PASSED_THROUGH, Arena
from bench.measurements import Measurement
from bench.peers.commands import PEERS, Peer, ready
from bench.scoring import filled, scorer
from bench.setting import GUARANTEES, Setting
from bench.throughput import Job, measure
from rides.pipeline import RIDES

PART = "peers"

_TIMES = 4
_LEFT_OUT = 0.5
"""Of so many times the rides the first half is left out: a JVM reaches its full rate after some seconds."""

_SHARES = {"quix-scikit-learn": 0.02, "quix-onnx": 0.1}
"""Slow peers get this share of them: their rates do not depend on it."""


def subject(name: str, guarantee: str) -> str:
    """How the report names a peer, or ours."""
    return f"{name}, {guarantee}"


def full(setting: Setting) -> Iterator[Measurement]:
    """Ours and every peer that is built, on every guarantee that it has."""
    built = [peer for peer in PEERS if ready(peer)]
    for peer in PEERS:
        if peer not in built:
            click.echo(f"{peer.name} is not measured: bench/peers/setup builds it", err=True)
    rides = setting.rides * _TIMES
    with filled(replace(setting, rides=rides)) as arena:
        inputs = {peer.name: _input(setting, arena, peer, rides) for peer in built}
        for run in range(setting.runs):
            for guarantee in GUARANTEES:
                ours = scorer(setting, arena, "duration", guarantee)
                yield Measurement(PART, ours.name, run, measure(arena, ours, rides, _LEFT_OUT))
                for peer in built:
                    reads, given = inputs[peer.name]
                    # Kafka Streams does not leave its group when it ends: each run has its own.
                    group = arena.named(f"{peer.name}-{GUARANTEES[guarantee]}-{run}")
                    job = _job(setting, peer, group, guarantee, reads=reads, writes=arena.named(PASSED_THROUGH))
                    yield Measurement(PART, job.name, run, measure(arena, job, given, _LEFT_OUT))


def _input(setting: Setting, arena: Arena, peer: Peer, rides: int) -> tuple[str, int]:
    """The topic that this peer reads, and how many rides are in it."""
    if peer.name not in _SHARES:
        return arena.named(RIDES.subjects.name), rides
    rides = max(1, round(rides * _SHARES[peer.name]))
    topic = arena.add_topic(f"rides-for-{peer.name}")
    arena.fill(topic, setting.backlog.rides(0, rides))
    return topic, rides


def _job(setting: Setting, peer: Peer, group: str, guarantee: str, *, reads: str, writes: str) -> Job:
    argv = peer.command(
        bootstrap=setting.broker,
        input=reads,
        output=writes,
        group=group,
        guarantee=GUARANTEES[guarantee],
        model=setting.models / "duration",
    )
    start = partial(setting.start, argv, {}, peer.name)
    name = subject(peer.name, guarantee)
    return Job(name, start, group, [reads], writes, guarantee, group_is_new=True)
