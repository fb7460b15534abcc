"""The documents say what is there: settings, commands, paths, names and links."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import click
import pytest
from confluent_kafka import KafkaError
from opentelemetry.sdk import environment_variables
from pydantic.fields import FieldInfo

from braidstream import cli, settings
from braidstream.cli.plugins import PIPELINE_VARIABLE
from braidstream.deciding.policy import Verdict
from braidstream.doctor.settings import DoctorSettings
from braidstream.settings import HandlerSettings, ScoringSettings, Settings, WorkerSettings
from braidstream.streaming.dead_letters import REPLAY
from braidstream.streaming.evidence_header import EVIDENCE
from braidstream.streaming.inbox import Reading
from braidstream.streaming.observer import View
from braidstream.streaming.ports import Partition
from braidstream.streaming.processor import Work
from braidstream.testing.kit import PolicyKit, ScorerKit
from decision_service.policy import RideDecisionSettings
from moderation.uploader import main as uploader
from producer.__main__ import cli as producer_cli
from producer.download import DownloadSettings
from rides.pipeline import RIDES
from tests import documented
from tests.documents import DOCUMENTS, README, ROOT, anchors, blocks, commands, links, spans, table
from tests.unit.events import ride

OPERATIONS = ROOT / "docs" / "operations.md"
COMPOSE = (ROOT / "docker-compose.yml").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
SERVICES = set(re.findall(r"^  (\w+):$", COMPOSE.split("\nservices:\n")[1], re.MULTILINE))

EXAMPLES = (
    "speed/",
    "days/",
    "parcels/",
    "moderation/",
    "history.py",
    "send.py",
    "test_model.py",
    "test_policy.py",
    "test_handler.py",
    "notice.v1.avsc",
)
"""Folders and files that the examples of the documents make."""
USERS = ("data", "/data", "models", ".venv", ".env", "rejects.csv")
"""Files and folders that users bring, or that come of running things."""
NO_SETTINGS = {"FULL_TRANSITIVE", "ILLEGAL_GENERATION", "KEY_CONVERTER", "ORT_DISABLE_TELEMETRY", "VALUE_CONVERTER"}
"""Words of others that look like settings."""
CLICK_COMMANDS = {"producer": "producer.__main__:cli", "bench": "bench.__main__:cli"}
DEFAULT_COMMANDS = {"replay", "run"}
"""Of groups of commands that take anything else for the arguments of one of them."""

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def _is_example(module: str) -> bool:
    return f"{module.replace('.', '/')}/".startswith(EXAMPLES)


# What the README lists


@pytest.mark.parametrize(
    ("heading", "kind", "listed_before"),
    [
        ("Every program", Settings, {}),
        ("Every worker", WorkerSettings, Settings.model_fields),
        ("A model's worker", ScoringSettings, WorkerSettings.model_fields),
        ("A consumer with a handler of its own", HandlerSettings, WorkerSettings.model_fields),
        ("The decision service of rides", RideDecisionSettings, WorkerSettings.model_fields),
    ],
    ids=["every program", "every worker", "scoring", "handling", "decisions"],
)
def test_every_setting_is_listed_with_its_default_and_meaning(
    heading: str, kind: type[Settings], listed_before: Mapping[str, FieldInfo]
) -> None:
    fields = {name: field for name, field in kind.model_fields.items() if name not in listed_before}

    assert table(README, f"### {heading}\n") == [_row(name, field) for name, field in fields.items()]


def _row(name: str, field: FieldInfo) -> tuple[str, str, str]:
    if name == "kafka":
        return "`KAFKA_<PROPERTY>`", "not set", str(field.description).removeprefix("`KAFKA_<PROPERTY>`: ")
    return f"`{name.upper()}`", _shown(field.default), str(field.description)


def _shown(default: Any) -> str:
    if default is None or default == "":
        return "not set" if default is None else "empty"
    text = (
        ",".join(default) if isinstance(default, tuple) else f"{default:g}" if isinstance(default, float) else default
    )
    return f"`{text}`"


def test_the_setting_of_a_download_is_listed() -> None:
    row = _row("trips_url", DownloadSettings.model_fields["trips_url"])

    assert table(ROOT / "docs" / "producer.md", "| setting |") == [row]


def test_every_refused_property_of_librdkafka_is_listed() -> None:
    refused = [(f"`KAFKA_{name.upper().replace('.', '_')}`", why) for name, why in settings._OWN.items()]

    assert table(README, "| refused | why |") == refused


def test_every_variable_of_the_compose_file_is_listed() -> None:
    rows = {name.strip("`"): default.strip("`") for name, default, _ in table(README, "| variable | default |")}
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE))

    assert rows == {name: default or "synthetic trips" for name, default in used.items()}


def test_every_option_of_a_replay_is_listed() -> None:
    options = [parameter.opts[0] for parameter in producer_cli.commands["replay"].params if "--" in parameter.opts[0]]

    assert [row[0].strip("`").split(" ")[0] for row in table(README, "| option | meaning |")] == options


def test_every_topic_is_listed() -> None:
    rows = [row[0].strip("`") for row in table(README, "| topic | key |")]

    assert rows == [*(topic.name for topic in RIDES.topics), RIDES.dead_letters]


def test_every_metric_is_listed_with_its_type_and_labels() -> None:
    rows = table(OPERATIONS, "| metric | type | labels |")
    listed = {name.strip("`"): (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows}

    assert listed == _exported()


def test_alerts_and_prose_name_metrics_that_there_are() -> None:
    named = set(re.findall(r"braidstream_\w+", OPERATIONS.read_text()))

    assert {name for name in named if name not in _exported()} == set()


def _exported() -> dict[str, tuple[str, set[str]]]:
    """Every metric of ours by the name that it is scraped by, with its type and labels, of both kinds of workers."""
    scorer = ScorerKit(RIDES, predict=lambda rides: [1.0] * len(rides), model="duration")
    decider = PolicyKit(RIDES, lambda known: Verdict("accept"), expected=["duration"])
    fails = KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True)
    scorer.broker.fail_next("commit_transaction", fails)
    scorer.send(ride())
    scorer.send_raw(b"x", b"not avro")
    decider.event(ride())
    found: dict[str, tuple[str, set[str]]] = {}
    for kit in (scorer, decider):
        metrics = kit.watcher.metrics
        assert metrics is not None
        metrics.describe(group="g", model="m", model_version="1")
        metrics.committed(Work(consumed={"ride_started": 1}, timestamps=[("ride_started", 0)]))
        readings = {Partition("t", 0): Reading(0, 0, 0, paused=False)}
        metrics.viewed(View(readings, kit.processor.gauges(), {"lost": 1}, drained=True))
        for family in metrics.registry.collect():
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            if family.name.startswith("braidstream_"):
                kind = "gauge" if family.type == "info" else family.type
                name = f"{family.name}{suffix}"
                found[name] = kind, labels | found.get(name, (kind, set()))[1]
    return found


# What the documents name


@every_document
def test_every_setting_that_is_named_exists(document: Path) -> None:
    named = {span.split("=")[0] for span in spans(document) if re.fullmatch(r"[A-Z]+(_[A-Z]+)+(=.*)?", span)}
    named |= {name for variables, _ in commands(document) for name in variables}
    kinds = (ScoringSettings, DoctorSettings, RideDecisionSettings, DownloadSettings)
    known = {name.upper() for kind in kinds for name in kind.model_fields}
    known |= {*re.findall(r"\$\{(\w+)", COMPOSE), "CI", PIPELINE_VARIABLE} | NO_SETTINGS
    known |= {name for name in vars(environment_variables) if name.startswith("OTEL_")}

    assert {name for name in named - known if not name.startswith("KAFKA_")} == set()


@every_document
def test_every_command_exists(document: Path) -> None:
    for _, words in commands(document):
        try:
            _check(words[0], words[1:])
        except (AssertionError, click.ClickException) as error:
            raise AssertionError(f"{shlex.join(words)}: {error}") from error


def _check(program: str, arguments: list[str]) -> None:
    match program, arguments:
        case "make", _:
            _check_make(arguments)
        case "braidstream", _:
            _check_click(cli.main, arguments)
        case "docker", ["compose", *words]:
            _check_compose(words)
        case "python", ["-m", module, *rest] if not _is_example(module):
            _check_module(module, rest)


def _check_make(arguments: list[str]) -> None:
    for word in arguments:
        name = word.split("=")[0]
        pattern = rf"\$\({name}\)" if "=" in word else rf"^{name}:"
        assert re.search(pattern, MAKEFILE, re.MULTILINE), f"the Makefile has no {name}"


def _check_module(module: str, arguments: list[str]) -> None:
    found = importlib.util.find_spec(module)
    assert found is not None, f"there is no module {module}"
    if found.submodule_search_locations is not None:
        assert importlib.util.find_spec(f"{module}.__main__") is not None, f"{module} cannot be run"
    name = CLICK_COMMANDS.get(module, f"{module}:main" if module.endswith(".train") else "")
    if name:
        _check_click(resolve_name(name), arguments)


def _check_compose(words: list[str]) -> None:
    named = [word.split("=")[0] for before, word in itertools.pairwise(words) if before == "--scale"]
    assert SERVICES.issuperset(named), f"there is no service {set(named) - SERVICES}"
    match words:
        case ["run", "--rm", "cli" | "producer" | "uploads" as service, *rest]:
            _check_click({"cli": cli.main, "producer": producer_cli, "uploads": uploader}[service], rest)
        case ["exec", service, *rest] | ["run", "--rm", service, *rest]:
            assert service in SERVICES
            _check(rest[0], rest[1:])


def _check_click(command: click.Command, arguments: list[str]) -> None:
    """Raises what click says of options that the command does not have; values are not looked at."""
    while isinstance(command, click.Group) and arguments and arguments[0] != "--version":
        names = command.list_commands(click.Context(command))
        name = arguments[0] if arguments[0] in names else DEFAULT_COMMANDS.intersection(names).pop()
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"there is no command {arguments[0]}"
        command, arguments = found, arguments[1:] if arguments[0] == name else arguments
    command.make_parser(click.Context(command)).parse_args(list(arguments))


def test_every_command_is_run_somewhere() -> None:
    listed = [*documented.IN_COMPOSE, *documented.ELSEWHERE, *documented.NOT_RUN]

    assert [line for line in listed if line not in documented.typed()] == [], "no document says this any more"
    assert [line for line in documented.at_the_desk() if re.search(r"(^|/| )(docker|make) ", line)] == []
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("test", documented.ELSEWHERE.values())
def test_what_runs_a_command_exists(test: str) -> None:
    file, _, name = test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text()


@every_document
def test_every_path_exists(document: Path) -> None:
    looks_like_one = r"\.?[\w-]+(/[\w.-]*)+|[\w-]+\.(py|md|toml|yml|lock|csv)"
    paths = {span for span in spans(document) if re.fullmatch(looks_like_one, span)}
    # A next version of a schema is only spoken of.
    own = {path.replace(".v2.", ".v1.") for path in paths if not path.startswith((*EXAMPLES, *USERS))}

    assert {path for path in own if not (ROOT / path).exists()} == set()


@every_document
def test_every_dotted_name_exists(document: Path) -> None:
    packages = "braidstream|producer|consumers|decision_service|rides|schemas"
    found = [re.match(rf"((?:{packages})(?:\.\w+)+)(?:\(|$)", span) for span in spans(document)]
    names = {match[1] for match in found if match and not _is_example(match[1])}
    for name in names - {"braidstream.pipelines", EVIDENCE} - {name for name in names if name.startswith(REPLAY)}:
        assert resolve_name(name) is not None


@every_document
def test_every_local_link_resolves(document: Path) -> None:
    for target in links(document):
        path, _, anchor = target.partition("#")
        if not path.startswith("https://"):
            file = document.parent / path if path else document
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


@every_document
def test_code_can_be_read(document: Path) -> None:
    for block in blocks(document):
        if block.language == "python":
            compile(block.code, block.file or document.name, "exec")
        elif block.language == "json":
            json.loads(block.code)
