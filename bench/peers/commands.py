"""How the benchmark starts the peers: each scores rides with the duration model until it gets SIGTERM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from rides.pipeline import RIDES

Guarantee: TypeAlias = Literal["exactly_once", "at_least_once"]

_HERE = Path(__file__).parent
_QUIX = _HERE / "quix"
_KAFKA_STREAMS = _HERE / "kafka_streams/target"
_GUARANTEES: tuple[Guarantee, ...] = ("exactly_once", "at_least_once")

# ONNX Runtime reports its use to its maker unless this is set before it is loaded.
_ENVIRON = ("env", "ORT_DISABLE_TELEMETRY=1")


@dataclass(frozen=True)
class Peer:
    """A program in another framework that scores the same rides with the same model.

    `stamp` is what `bench/peers/setup` writes last; `ticks` is how many of the units in which the program takes its
    commit interval make a second.
    """

    name: str
    program: tuple[str, ...]
    guarantees: tuple[Guarantee, ...]
    stamp: Path
    ticks: int

    def command(
        self,
        *,
        bootstrap: str,
        input: str,
        output: str,
        group: str,
        guarantee: Guarantee,
        model: Path,
        commit_interval: float | None = None,
    ) -> list[str]:
        """The argument list that starts it, from any working directory.

        The topics `input` and `output` must be there; `model` is the duration model's folder; `commit_interval` is in
        seconds (whole milliseconds), and as the framework comes when it is None.
        """
        options = {
            "--bootstrap": bootstrap,
            "--input": input,
            "--output": output,
            "--group": group,
            "--guarantee": guarantee,
            "--model": str(model.absolute()),
            "--schema-id": str(RIDES.predictions.event_type.latest.local_id),
        }
        if commit_interval is not None:
            options["--commit-interval"] = f"{commit_interval * self.ticks:.12g}"
        return [*_ENVIRON, *self.program, *(part for option in options.items() for part in option)]


def _quix(engine: str) -> Peer:
    program = (str(_QUIX / ".venv/bin/python"), str(_QUIX / "row_by_row.py"), "--engine", engine)
    return Peer(f"quix-{engine}", program, _GUARANTEES, _QUIX / ".venv/setup.stamp", ticks=1)


PEERS: tuple[Peer, ...] = (
    _quix("scikit-learn"),
    _quix("onnx"),
    Peer(
        "kafka-streams",
        ("java", "-jar", str(_KAFKA_STREAMS / "row-by-row.jar")),
        _GUARANTEES,
        _KAFKA_STREAMS / "setup.stamp",
        ticks=1000,
    ),
)


def ready(peer: Peer) -> bool:
    """Whether `bench/peers/setup` has built this peer."""
    return peer.stamp.exists()
