"""Scoring by other frameworks, beside ours: the same rides, the same model, the same measuring."""

from __future__ import annotations

from collections.abc import Iterator

import click

from bench.arena import PASSED_THROUGH, Arena
from bench.measurements import Measurement
from bench.peers.commands import PEERS, Peer, ready
from bench.scoring import filled, scorer
from bench.setting import GUARANTEES, Setting
from bench.throughput import Job, measure
from rides.pipeline import RIDES

PART = "peers"

_SHARES = {"quix-scikit-learn": 0.05, "quix-onnx": 0.25}
"""Slow peers get this share of the rides: their rates do not depend on it."""


def subject(name: str, guarantee: str) -> str:
    """How the report names a peer, or ours."""
    return f"{name}, {guarantee}"


def full(setting: Setting) -> Iterator[Measurement]:
    """Ours and every peer that is built, on every guarantee that it has."""
    built = [peer for peer in PEERS if ready(peer)]
    for peer in PEERS:
        if peer not in built:
            click.echo(f"{peer.name} is not measured: bench/peers/setup builds it", err=True)
    with filled(setting) as arena:
        inputs = {peer.name: _input(setting, arena, peer) for peer in built}
        for run in range(setting.runs):
            for guarantee, setting_value in GUARANTEES.items():
                ours = scorer(setting, arena, "duration", guarantee)
                yield Measurement(PART, ours.name, run, measure(arena, ours, setting.rides))
                for peer in built:
                    if setting_value in peer.guarantees:
                        topic, rides = inputs[peer.name]
                        job = _job(setting, arena, peer, topic, guarantee)
                        yield Measurement(PART, job.name, run, measure(arena, job, rides))


def _input(setting: Setting, arena: Arena, peer: Peer) -> tuple[str, int]:
    """The topic that this peer reads, and how many rides are in it."""
    if peer.name not in _SHARES:
        return arena.named(RIDES.subjects.name), setting.rides
    rides = max(1, round(setting.rides * _SHARES[peer.name]))
    topic = arena.add_topic(f"rides-for-{peer.name}")
    arena.fill(topic, setting.backlog.rides(0, rides))
    return topic, rides


def _job(setting: Setting, arena: Arena, peer: Peer, topic: str, guarantee: str) -> Job:
    group, output = arena.named(peer.name), arena.named(PASSED_THROUGH)
    argv = peer.command(
        bootstrap=setting.broker,
        input=topic,
        output=output,
        group=group,
        guarantee=GUARANTEES[guarantee],
        model=(setting.models / "duration").resolve(),
    )
    name = subject(peer.name, guarantee)
    return Job(name, lambda _: setting.start(argv, {}, peer.name), group, [topic], output, guarantee)
