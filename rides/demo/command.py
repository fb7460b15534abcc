"""`braidstream demo`: starts everything, replays trips, and says what came of it."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import FrameType

import click
import polars as pl

from braidstream import logs
from braidstream.embedded import EMBEDDED_PROPERTIES, PARTITIONS, EmbeddedBroker
from braidstream.errors import BraidstreamError, FatalError, SettingsError
from braidstream.models.folder import is_model, read_card
from braidstream.processes import Processes
from braidstream.settings import Settings
from braidstream.streaming import clients, topics
from braidstream.writer import EventWriter, open_writer
from consumers.ride_training import earliest_share
from decision_service.policy import RideDecisionSettings
from producer.pace import at_once, at_rate
from producer.replay import replay
from producer.sample import write_sample
from producer.trips import Trips, encoded, read_trips
from rides.demo.show import Show
from rides.demo.summary import TASKS, Summary, summarize
from rides.demo.watch import Watch
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted

SHARE_TRAINED = 0.3
WINDOW = 20_000
"""Rides that the producer may be ahead of the slowest reader: the embedded broker forgets what is read too late."""

SAMPLE_ROWS = 30_000
SAMPLE_MONTH = "2000-01"
"""Before TLC's records begin, so that no model of real trips was trained on these."""

_WORKERS = ("consumers.duration", "consumers.duration", "consumers.tip", "consumers.tip", "decision_service")
_JOIN_TIMEOUT = 60.0
_SLACK = 10.0


@dataclass(frozen=True)
class Broker:
    """Where the demo runs: the settings of this process, and what the workers need on top of its environment."""

    settings: Settings
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """What is there while rides are sent."""

    settings: Settings
    workers: Processes
    watch: Watch
    show: Show

    def look(self, sent: int, wait: float = 0.0) -> int:
        """Read what has come, show it, and see that the workers live; the number of records read."""
        records = self.watch.read(wait)
        if self.show.update(sent, self.watch.seen):
            self.workers.require_alive()
        return records


@click.command(
    "demo",
    help="""Replay trips through the whole pipeline and watch them become decisions.

    It starts librdkafka's embedded broker, or uses KAFKA_BOOTSTRAP_SERVERS; trains the models on the earliest 30 % of
    the trips if there are none; starts two workers of each model and the decision service; replays the trips; and
    ends with a summary. Exits with 1 when a ride was not decided.

    \b
    Examples:
      braidstream demo
      braidstream demo --trips green_tripdata_2023-02.parquet --rides 20000
      KAFKA_BOOTSTRAP_SERVERS=localhost:9092 braidstream demo --json
    """,
)
@click.option(
    "--trips",
    "files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A month of TLC trips; repeatable. Without it, synthetic trips.",
)
@click.option("--rides", "limit", type=click.IntRange(1), metavar="N", help="Send N rides, those after the training.")
@click.option(
    "--rate",
    type=click.FloatRange(0),
    default=2000.0,
    show_default=True,
    metavar="N",
    help="Rides a second; 0 sends them as fast as they are read.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on the last line.")
def demo(files: tuple[Path, ...], limit: int | None, rate: float, as_json: bool) -> None:
    """Run the demo; see the command's help."""
    logs.configure("warning", "auto")
    show = Show()
    try:
        with _interruptible():
            summary = _run(files, limit, rate, show)
    except KeyboardInterrupt:
        show.line("interrupted; every process of the demo is stopped")
        sys.exit(130)
    except BraidstreamError as error:
        show.line(f"Error: {error}")
        sys.exit(2 if isinstance(error, SettingsError) else 1)
    for line in summary.as_lines():
        click.echo(line, err=as_json)
    if as_json:
        click.echo(json.dumps(summary.as_json()))
    if not summary.ok:
        show.line(f"Error: {summary.missing:,} rides were not decided")
        sys.exit(1)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: everything that was started is stopped."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(files: Sequence[Path], limit: int | None, rate: float, show: Show) -> Summary:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="braidstream-demo-")))
        trips, source = _trips(files, folder, show)
        models = _models(trips, source, show)
        chosen = _chosen(trips, limit)
        broker = stack.enter_context(_broker(show))
        watch = Watch(broker.settings, [task.name for task in TASKS])
        stack.callback(watch.close)
        workers = stack.enter_context(Processes(folder))
        _start_workers(workers, broker, models, show)
        run = Run(broker.settings, workers, watch, show)
        sent_at = _replay(chosen, rate, run)
        _await_decisions(chosen.rides.height, run)
    untrained = {name: _not_trained_on(uri) for name, uri in models.items()}
    return summarize(chosen.rides, sent_at, trips.rejects.height, watch.seen, untrained)


def _trips(files: Sequence[Path], folder: Path, show: Show) -> tuple[Trips, str]:
    """The trips, and what names them."""
    if not files:
        path = folder / f"green_tripdata_{SAMPLE_MONTH}.parquet"
        write_sample(path, SAMPLE_ROWS, seed=1, month=SAMPLE_MONTH)
        show.line(f"no trips given: {SAMPLE_ROWS:,} synthetic ones")
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
    return ~pl.col("pickup_at").is_between(_naive(data.earliest), _naive(data.latest))


def _naive(time_: datetime) -> datetime:
    return time_.replace(tzinfo=None)


def _chosen(trips: Trips, limit: int | None) -> Trips:
    """The rides to send, under ids of their own so that a broker that knows them decides them again."""
    total = trips.rides.height
    count = min(limit or total, total)
    trained = earliest_share(trips.rides, SHARE_TRAINED).height
    first = 0 if limit is None else min(trained, total - count)
    return Trips(trips.rides.slice(first, count), trips.rejects).with_new_ids()


@contextmanager
def _broker(show: Show) -> Iterator[Broker]:
    """The broker of the environment, with the topics made; or the embedded one."""
    settings = Settings.load()
    if "bootstrap.servers" in settings.kafka:
        client = clients.admin(settings)
        topics.await_broker(client, settings)
        wanted = topics.specs(RIDES, settings)
        topics.create(client, wanted, settings.replication_factor)
        topics.check(client, wanted, settings)
        show.line(
            f"broker: Kafka at {settings.bootstrap_servers}, exactly once unless PROCESSING_GUARANTEE says otherwise"
        )
        yield Broker(settings, {})
        return
    with EmbeddedBroker() as embedded:
        kafka = {**settings.kafka, "bootstrap.servers": embedded.bootstrap_servers, **EMBEDDED_PROPERTIES}
        environment = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in kafka.items()}
        environment |= {"PROCESSING_GUARANTEE": "at_least_once", "PARTITIONS": str(PARTITIONS)}
        settings = settings.model_copy(update={"kafka": kafka, "partitions": PARTITIONS})
        embedded.create([spec.name for spec in topics.specs(RIDES, settings)])
        show.line("broker: librdkafka's embedded one, at least once; it is for trying out and keeps nothing")
        yield Broker(settings, environment)


def _start_workers(workers: Processes, broker: Broker, models: Mapping[str, Path], show: Show) -> None:
    """Start them, and wait until every partition has its worker."""
    for module in _WORKERS:
        name = module.rpartition(".")[2]
        model = {"MODEL_URI": str(models[name])} if name in models else {}
        workers.start(module, {"LOG_FORMAT": "console", **broker.environment, **model})
    wanted = dict.fromkeys(_WORKERS, broker.settings.partitions) | {"decision_service": 2 * broker.settings.partitions}
    deadline = time.monotonic() + _JOIN_TIMEOUT
    while any(workers.partitions(module) < count for module, count in wanted.items()):
        workers.require_alive()
        if time.monotonic() > deadline:
            raise FatalError(f"the workers did not take over all partitions within {_JOIN_TIMEOUT:g} s")
        time.sleep(0.1)
    show.line(f"{len(_WORKERS)} workers are ready")


def _replay(chosen: Trips, rate: float, run: Run) -> list[float]:
    """Send the rides and read what comes of them meanwhile; when each ride was sent, by `time.monotonic`."""
    sent_at: list[float] = []

    with open_writer(RIDES.subjects, run.settings) as writer:
        replay(
            encoded(chosen.rides, writer.encode),
            _Stamped(writer, sent_at),
            due=at_rate(chosen.rides.height, rate) if rate else at_once(chosen.rides.height),
            limit=lambda: run.watch.seen.slowest() + WINDOW,
            progress=run.look,
        )
    return sent_at


class _Stamped:
    """A writer that notes when each ride was sent."""

    def __init__(self, writer: EventWriter[RideStarted], sent_at: list[float]) -> None:
        self._writer = writer
        self._sent_at = sent_at

    def send_many(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        self._sent_at += [time.monotonic()] * len(keys)
        self._writer.send_many(keys, values)

    def poll(self, timeout: float) -> None:
        self._writer.poll(timeout)

    def flush(self) -> None:
        self._writer.flush()


def _await_decisions(count: int, run: Run) -> None:
    """Read until every ride is predicted and decided, or nothing has come for longer than a decision may take."""
    settings = RideDecisionSettings.load()
    patience = settings.decision_deadline + settings.deadline_grace + _SLACK
    last = time.monotonic()
    seen = run.watch.seen
    while seen.slowest() < count:
        if run.look(count, wait=0.1):
            last = time.monotonic()
        if time.monotonic() - last > (_SLACK if len(seen.decisions) >= count else patience):
            break
