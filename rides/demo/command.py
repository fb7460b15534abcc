"""What `braidstream demo` does: starts everything, replays trips, and says what came of it."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import polars as pl

from braidstream import EventWriter, SettingsError, open_writer
from braidstream.demo import SLACK, Run, Show, Worker, running
from braidstream.training import is_model, read_card
from consumers.ride_training import earliest_share
from decision_service.policy import RideDecisionSettings
from producer.pace import AtOnce, Rate
from producer.replay import replay
from producer.rounds import Rounds
from producer.sample import write_sample
from producer.trips import Trips, encoded, read_trips
from rides.demo.summary import TASKS, Summary, summarize
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted

SHARE_TRAINED = 0.3
WINDOW = 20_000
"""Rides that the producer may be ahead of the slowest reader: the embedded broker forgets what is read too late."""

SAMPLE_ROWS = 30_000
SAMPLE_MONTH = "2000-01"
"""Before TLC's records begin, so that no model of real trips was trained on these."""


def run_demo(files: Sequence[Path], limit: int | None, rate: float, show: Show) -> Summary:
    """The demo from the trips to the summary; `limit` and `rate` as the command's options say."""
    trips, source = _trips(files, show)
    models = _models(trips, source, show)
    chosen = _chosen(trips, limit)
    with running(RIDES, list(models), show) as run:
        workers = list(_workers(models))
        run.start(*workers)
        show.line(f"{len(workers)} workers are ready")
        _replay(chosen, rate, run)
        settings = RideDecisionSettings.load()
        run.settle(
            lambda: run.seen.slowest() >= chosen.rides.height,
            patience=settings.decision_deadline + settings.deadline_grace + SLACK,
        )
    untrained = {name: _not_trained_on(uri) for name, uri in models.items()}
    return summarize(chosen.rides, run.sent_at, trips.rejects.height, run.seen, untrained)


def _trips(files: Sequence[Path], show: Show) -> tuple[Trips, str]:
    """The trips, and what names them."""
    if not files:
        show.line(f"no trips given: {SAMPLE_ROWS:,} synthetic ones")
        with tempfile.TemporaryDirectory(prefix="braidstream-demo-") as folder:
            path = Path(folder) / f"green_tripdata_{SAMPLE_MONTH}.parquet"
            write_sample(path, SAMPLE_ROWS, seed=1, month=SAMPLE_MONTH)
            return read_trips([path], outcomes=True), f"sample-{SAMPLE_MONTH}"
    trips = read_trips(files, outcomes=True)
    if trips.rides.is_empty():
        raise SettingsError(f"no row of {', '.join(map(str, files))} is a ride")
    show.line(f"{trips.rides.height:,} rides in {', '.join(map(str, files))}")
    return trips, sha256("".join(trips.rides["ride_id"]).encode()).hexdigest()[:12]


def _models(trips: Trips, source: str, show: Show) -> dict[str, Path]:
    """The model folders: `models/<name>` where the user has trained one, else one trained on part of these trips."""
    folders = {}
    for task in TASKS:
        own, demo_folder = Path("models", task.name), Path("models", "demo", source, task.name)
        folder = own if is_model(own) else demo_folder
        if not is_model(folder):
            show.line(f"training {task.name} on the earliest {SHARE_TRAINED:.0%} of the trips")
            task.train(trips, folder, earliest=SHARE_TRAINED)
        show.line(f"{task.name}: model {read_card(folder).version} in {folder}")
        folders[task.name] = folder
    return folders


def _not_trained_on(folder: Path) -> pl.Expr:
    data = read_card(folder).data
    if data.earliest is None or data.latest is None:
        raise SettingsError(f"the model in {folder} does not say from when to when its rides were: train it by --trips")
    return ~pl.col("pickup_at").is_between(_naive(data.earliest), _naive(data.latest))


def _naive(time_: datetime) -> datetime:
    return time_.replace(tzinfo=None)


def _chosen(trips: Trips, limit: int | None) -> Trips:
    """The rides to send, under ids of their own so that a broker that knows them decides them again."""
    total = trips.rides.height
    count = min(limit or total, total)
    trained = earliest_share(trips.rides, SHARE_TRAINED).height
    first = 0 if limit is None else min(trained, total - count)
    rounds = Rounds(trips.rides.slice(first, count), count, secrets.token_hex(16))
    return Trips(pl.concat(rounds.frames()), trips.rejects)


def _workers(models: Mapping[str, Path]) -> Iterator[Worker]:
    """Two of each model, and the decision service, which joins two topics."""
    for name, folder in models.items():
        yield from [Worker(f"consumers.{name}", {"MODEL_URI": str(folder)})] * 2
    yield Worker("decision_service", topics=2)


def _replay(chosen: Trips, rate: float, run: Run) -> None:
    """Send the rides and read what comes of them meanwhile."""
    with open_writer(RIDES.subjects, run.settings) as writer:
        replay(
            encoded(chosen.rides, writer.encode),
            _Stamped(writer, run.sent_at),
            pace=Rate(rate, rate) if rate else AtOnce(),
            limit=lambda: run.seen.slowest() + WINDOW,
            progress=lambda _sent: run.look(),
        )


class _Stamped:
    """A writer that notes when each ride was sent."""

    def __init__(self, writer: EventWriter[RideStarted], sent_at: dict[str, float]) -> None:
        self._writer = writer
        self._sent_at = sent_at

    def send_many(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        self._sent_at |= dict.fromkeys([key.decode() for key in keys], time.monotonic())
        self._writer.send_many(keys, values)

    def poll(self, timeout: float) -> None:
        self._writer.poll(timeout)

    def flush(self) -> None:
        self._writer.flush()
