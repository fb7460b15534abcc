"""What applications may name of this package, in full: a name that is added or lost is a change of the public API."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.documents import ROOT

PUBLIC = {
    "braidstream": {
        "BraidstreamError": "braidstream.errors",
        "Columns": "braidstream.columns",
        "Decision": "schemas.decision",
        "DecisionSettings": "braidstream.settings",
        "Event": "schemas.event",
        "EventType": "braidstream.avro",
        "EventWriter": "braidstream.writer",
        "Events": "braidstream.events",
        "Evidence": "braidstream.deciding.policy",
        "FatalError": "braidstream.errors",
        "FeatureSet": "braidstream.models.features",
        "Handle": "braidstream.streaming.handler",
        "HandlerSettings": "braidstream.settings",
        "Known": "braidstream.deciding.policy",
        "Matrix": "braidstream.models.features",
        "ModelNames": "braidstream.settings",
        "Pipeline": "braidstream.pipelines",
        "Policy": "braidstream.deciding.policy",
        "Prediction": "schemas.prediction",
        "RetriableError": "braidstream.errors",
        "Scorer": "braidstream.models.scorer",
        "ScoringSettings": "braidstream.settings",
        "Settings": "braidstream.settings",
        "SettingsError": "braidstream.errors",
        "Topic": "braidstream.pipelines",
        "Verdict": "braidstream.deciding.policy",
        "WorkerSettings": "braidstream.settings",
        "changelog": "braidstream.pipelines",
        "load_model": "braidstream.models.loading",
        "open_writer": "braidstream.writer",
        "pipeline": "braidstream.pipelines",
        "run_decisions": "braidstream.run",
        "run_handler": "braidstream.run",
        "run_scorer": "braidstream.run",
    },
    "braidstream.cli": {"in_sentences": "braidstream.cli.errors", "main": "braidstream.cli"},
    "braidstream.demo": {
        "Follow": "braidstream.demo.watch",
        "Run": "braidstream.demo.run",
        "SLACK": "braidstream.demo.run",
        "Seen": "braidstream.demo.watch",
        "Show": "braidstream.demo.show",
        "Tally": "braidstream.demo.figures",
        "Worker": "braidstream.demo.run",
        "line": "braidstream.demo.figures",
        "play": "braidstream.demo.command",
        "running": "braidstream.demo.run",
        "tally": "braidstream.demo.figures",
    },
    "braidstream.logs": {"configure": "braidstream.logs"},
    "braidstream.testing": {
        "DeadLetter": "braidstream.testing.worker",
        "FakeBroker": "braidstream.testing.broker",
        "HandlerKit": "braidstream.testing.kit",
        "PolicyKit": "braidstream.testing.kit",
        "ScorerKit": "braidstream.testing.kit",
    },
    "braidstream.training": {
        "MIN_ROWS": "braidstream.models.training",
        "ModelCard": "braidstream.models.folder",
        "TrainingData": "braidstream.models.training",
        "errors": "braidstream.models.measures",
        "folder_of": "braidstream.models.folder",
        "is_model": "braidstream.models.folder",
        "probability_measures": "braidstream.models.measures",
        "read_card": "braidstream.models.folder",
        "run_training": "braidstream.training",
        "threshold_for_precision": "braidstream.models.measures",
        "train": "braidstream.models.training",
    },
}
NAMES = [(module, name) for module, names in PUBLIC.items() for name in names]

each_name = pytest.mark.parametrize(("module", "name"), NAMES, ids=[f"{module}.{name}" for module, name in NAMES])


@pytest.mark.parametrize("module", PUBLIC)
def test_the_public_names_are_these(module: str) -> None:
    found = import_module(module)

    assert set(found.__all__) == PUBLIC[module].keys()
    assert set(dir(found)) >= PUBLIC[module].keys()


@each_name
def test_a_name_is_what_its_module_defines(module: str, name: str) -> None:
    home = import_module(PUBLIC[module][name])
    found = getattr(import_module(module), name)

    assert found is getattr(home, name)
    if inspect.isclass(found) or inspect.isfunction(found):
        assert found.__module__ == home.__name__


@each_name
def test_a_name_has_a_docstring_and_types(module: str, name: str) -> None:
    home = import_module(PUBLIC[module][name])
    found = getattr(home, name)
    if inspect.isclass(found):
        assert found.__doc__, name
        assert [method for method, function in _methods(found) if not (function.__doc__ and _is_typed(function))] == []
    elif inspect.isfunction(found):
        assert found.__doc__, name
        assert _is_typed(found)
    else:
        assert getattr(found, "help", None) or name in _documented_variables(Path(str(home.__file__)))


def _methods(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class itself defines."""
    for name, value in vars(kind).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, function


def _is_typed(function: Any) -> bool:
    signature = inspect.signature(function)
    own = [parameter for parameter in signature.parameters.values() if parameter.name not in {"self", "cls"}]
    annotations = [signature.return_annotation, *(parameter.annotation for parameter in own)]
    return inspect.Signature.empty not in annotations


def _documented_variables(file: Path) -> set[str]:
    """Variables of a module that a docstring follows."""
    body = ast.parse(file.read_text()).body
    found = set()
    for before, after in pairwise(body):
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            targets = before.targets if isinstance(before, ast.Assign) else [getattr(before, "target", None)]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("folder", ["rides", "consumers", "producer", "decision_service", "examples"])
def test_applications_use_nothing_else(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    others = {f"{path.relative_to(ROOT)}: {name}" for path in files for name in _imported(path) if not _is_public(name)}

    assert files
    assert others == set()


def _imported(file: Path) -> Iterator[str]:
    """What a file imports of this package, by its full names."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name for name in names if name.partition(".")[0] == "braidstream")


def _is_public(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    return name in PUBLIC or attribute in PUBLIC.get(module, {})


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(ImportError, match="cannot import name 'Pipelin'"):
        exec("from braidstream import Pipelin")


@pytest.mark.parametrize(
    ("statement", "unloaded"),
    [
        ("import braidstream", ["braidstream.errors", "pydantic", "numpy"]),
        ("from braidstream.cli import main", ["pydantic", "numpy", "confluent_kafka"]),
        ("from braidstream import EventType, Topic, pipeline", ["confluent_kafka", "onnxruntime", "sklearn"]),
        ("from braidstream import Verdict", ["confluent_kafka", "onnxruntime", "sklearn"]),
        ("from braidstream import Settings, open_writer", ["onnxruntime", "sklearn"]),
        ("from braidstream import run_scorer", ["sklearn", "skl2onnx", "polars"]),
    ],
)
def test_nothing_is_loaded_that_was_not_asked_for(statement: str, unloaded: list[str]) -> None:
    code = f"{statement}\nimport sys\nprint(*(set({unloaded!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.split() == []
