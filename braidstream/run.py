"""Starts a worker: the one place where settings, clients, models and the loop are put together."""

from __future__ import annotations

import gc
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog

from braidstream import logs, tracing
from braidstream.avro import E, SchemaSource
from braidstream.deciding.policy import Policy
from braidstream.errors import BraidstreamError, SettingsError
from braidstream.models.features import FeatureSet
from braidstream.models.loading import load_model
from braidstream.models.scorer import Scorer
from braidstream.pipelines import Pipeline, Topic
from braidstream.processors import StateBroker, decision_processor, handler_processor, scoring_processor
from braidstream.registry import schemas_for
from braidstream.settings import DecisionSettings, HandlerSettings, ScoringSettings, Settings, WorkerSettings
from braidstream.streaming import clients, topics
from braidstream.streaming.handler import Handle, Out
from braidstream.streaming.inbox import Inbox
from braidstream.streaming.observer import Observer
from braidstream.streaming.outage import Outage
from braidstream.streaming.processor import Processor
from braidstream.streaming.publisher import AtLeastOncePublisher, Publisher, TransactionalPublisher
from braidstream.streaming.worker import Worker
from braidstream.watching.reachability import probes
from braidstream.watching.watcher import Watcher
from schemas.handled import Handled

S = TypeVar("S", bound=WorkerSettings)
D = TypeVar("D", bound=DecisionSettings)
H = TypeVar("H", bound=HandlerSettings)

LINGER = {"exactly_once": 0.001, "at_least_once": 0.0}
"""Seconds that a batch waits for more: a transaction costs milliseconds, whatever is in it, and one that begins before
the markers of the last one are written is made to wait for longer."""


def now_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def run_scorer(
    pipeline: Pipeline[E],
    model: str,
    features: FeatureSet[E],
    train_with: str | None = None,
    trusted: Sequence[str] = (),
) -> None:
    """Run the worker that serves a model, as consumer group `model`, until SIGTERM. Exits the process.

    `train_with` is the command that makes the model, for the message when there is none. `trusted` are the full names
    of types of your own that the model may be made of, as for `load_model`.
    """

    def start(settings: ScoringSettings, watcher: Watcher) -> Worker:
        uri = settings.model_uri or f"models/{model}"
        watcher.readiness.note("model_loaded", f"{uri} is being loaded")
        served = load_model(uri, train_with=train_with, trusted=trusted)
        if served.name != model:
            raise SettingsError(f"MODEL_URI holds the model {served.name!r}, this is the worker of {model!r}")
        scorer = Scorer(served, features)
        structlog.get_logger().info("model loaded", model=served.name, version=served.version)
        watcher.readiness.note("model_loaded", None)
        schemas = _prepare(pipeline, settings)
        group = settings.named(model)
        watcher.describe(group=group, model=served.name, model_version=served.version)
        processor = scoring_processor(
            pipeline, settings, schemas, group, scorer, model=(model, served.version), clock=now_ms
        )
        return make_worker(settings, group, processor, watcher)

    _main(pipeline, ScoringSettings, start)


def run_decisions(
    pipeline: Pipeline[E], name: str, make_policy: Callable[[D], Policy[E]], settings_type: type[D]
) -> None:
    """Run the decision service, as consumer group `name`, until SIGTERM. Exits the process.

    `make_policy` gets the settings, of a subclass of `DecisionSettings` that has the policy's own thresholds.
    """

    def start(settings: D, watcher: Watcher) -> Worker:
        schemas = _prepare(pipeline, settings)
        group = settings.named(name)
        watcher.describe(group=group)
        policy = make_policy(settings)
        broker = _state_broker(settings, group)
        processor = decision_processor(pipeline, settings, schemas, group, policy, broker=broker)
        return make_worker(settings, group, processor, watcher)

    _main(pipeline, settings_type, start)


def run_handler(
    pipeline: Pipeline[E],
    name: str,
    make_handler: Callable[[H], Handle[E, Out]],
    settings_type: type[H],
    *,
    writes: Topic[Out],
    once: Topic[Handled] | None = None,
) -> None:
    """Run a consumer with a handler of its own, as consumer group `name`, until SIGTERM. Exits the process.

    `make_handler` gets the settings, of `HandlerSettings` or a subclass. The handler is given the subjects' events in
    batches, and returns for each event the events that go to `writes`: none, one or several. Each is keyed by its own
    field; one with another key than its subject goes to the partition of that key.

    With `once`, a `changelog` that is this consumer's alone, a subject is handled once: until `REMEMBER` seconds later
    its further events give nothing, also after restarts and on other workers. What was handled is written in the same
    transaction as the outputs and the offsets. With at_least_once it is written when the outputs are in the log: they
    may come again after a failure between the two, and later repeats give nothing. A subject whose event became a dead
    letter is not handled. `writes` and `once` have to be among the pipeline's `others`.
    """

    def start(settings: H, watcher: Watcher) -> Worker:
        schemas = _prepare(pipeline, settings)
        group = settings.named(name)
        watcher.describe(group=group)
        processor = handler_processor(
            pipeline,
            settings,
            schemas,
            group,
            make_handler(settings),
            writes=writes,
            once=once,
            broker=_state_broker(settings, group),
        )
        return make_worker(settings, group, processor, watcher)

    _main(pipeline, settings_type, start)


def make_worker(settings: WorkerSettings, group: str, processor: Processor, observer: Observer) -> Worker:
    """A worker of this group on the broker of the settings."""
    assignment: clients.Assignment = "range" if processor.joins else "cooperative"
    outage = Outage(topics.answers(clients.admin(settings)), settings.bootstrap_servers, settings.broker_timeout)
    consumer = clients.worker_consumer(settings, group, assignment, outage.heard)
    inbox = Inbox(
        consumer,
        processor.topics,
        eager=clients.is_eager(settings, assignment),
        silent=clients.is_silent(settings),
        hold_new=processor.stateful,
        offsets_command=f"kafka-consumer-groups.sh --bootstrap-server {settings.bootstrap_servers} --group {group}",
        patience=settings.broker_timeout,
    )
    publisher: Publisher
    if settings.processing_guarantee == "exactly_once":
        publisher = TransactionalPublisher(
            lambda: clients.transactional_producer(settings, group), settings.broker_timeout
        )
    else:
        publisher = AtLeastOncePublisher(
            lambda: clients.plain_producer(settings, group), inbox.commit, settings.broker_timeout
        )
    return Worker(
        inbox,
        processor,
        publisher,
        batch_size=settings.batch_size,
        linger=LINGER[settings.processing_guarantee],
        give_up_after=settings.broker_timeout,
        observer=observer,
        outage=outage,
        tracer=tracing.worker_tracer(settings, group),
    )


def _state_broker(settings: WorkerSettings, group: str) -> StateBroker:
    return StateBroker(
        clients.BrokerLogEnds(lambda: clients.admin(settings)),
        lambda: clients.stretch_reader(settings, f"{group}-restore"),
        now_ms,
    )


def _prepare(pipeline: Pipeline[Any], settings: WorkerSettings) -> SchemaSource:
    """Check broker and topics, and register the schemas, before anything is read."""
    client = clients.admin(settings)
    metadata = topics.await_broker(client, settings)
    if topics.is_embedded(metadata):
        if settings.processing_guarantee == "exactly_once":
            raise SettingsError("the embedded broker keeps no transactions: set PROCESSING_GUARANTEE=at_least_once")
    else:
        topics.check(client, topics.specs(pipeline, settings), settings)
    return schemas_for(settings, [topic.event_type for topic in pipeline.topics])


def _main(pipeline: Pipeline[Any], settings_type: type[S], start: Callable[[S, Watcher], Worker]) -> None:
    """Read the settings, run the worker; what goes wrong is one line, and the exit code."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        # Else who only wants to read takes partitions from the workers that run.
        print(usage(settings_type))
        sys.exit(0)
    sys.exit(report(lambda: _run(pipeline, settings_type, start)))


def usage(settings_type: type[Settings]) -> str:
    """The settings of a program, for 80 columns."""
    lines = ["This program takes no arguments. Its settings are environment variables:"]
    for name, field in settings_type.model_fields.items():
        shown = "KAFKA_<PROPERTY>" if name == "kafka" else name.upper()
        lines += ["", shown, textwrap.fill(str(field.description), 76, initial_indent="    ", subsequent_indent="    ")]
    return "\n".join(lines)


def _run(pipeline: Pipeline[Any], settings_type: type[S], start: Callable[[S, Watcher], Worker]) -> None:
    # Nothing is in hand before the loop begins; then the worker's own handler takes over.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = settings_type.load()
    logs.configure(settings.log_level, settings.log_format)
    tracing.check(settings)
    # A batch is thousands of tuples that soon go, none in a cycle: looking for cycles at every 700th of them, as
    # is the default, took a sixth of the time.
    gc.set_threshold(50_000)
    with _watched(pipeline, settings) as watcher:
        start(settings, watcher).run()


@contextmanager
def _watched(pipeline: Pipeline[Any], settings: WorkerSettings) -> Iterator[Watcher]:
    """Watch a worker from before it has anything until its end, over HTTP too where the settings say so.

    A loop that waits for the broker within its limits is not stuck, nor is one that still has its partitions.
    """
    served = settings.http_port is not None
    stuck_after = max(settings.max_poll_interval, 2 * settings.broker_timeout)
    with Watcher(stuck_after=stuck_after, stalled_after=settings.broker_timeout, metrics=served, now=now_ms) as watcher:
        if settings.http_port is not None:
            asked = probes(settings, settings.named(pipeline.subjects.name))
            watcher.serve(settings.http_host, settings.http_port, asked)
        yield watcher


def report(run: Callable[[], None]) -> int:
    """The exit code of a program: 0, 2 when a setting, file or topic must be mended, 1 for everything else."""
    try:
        run()
    except SettingsError as error:
        structlog.get_logger().error("refused to start", reason=str(error))
        return 2
    except BraidstreamError as error:
        structlog.get_logger().error("stopped", error=type(error).__name__, reason=str(error))
        return 1
    except Exception:
        structlog.get_logger().exception("stopped by an error that this program does not know")
        return 1
    return 0
