"""Which pipeline a command is about: installed and named, at `module:ATTRIBUTE`, or the one that has the topic."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from braidstream.cli import plugins
from braidstream.errors import SettingsError
from braidstream.pipelines import Pipeline
from rides.pipeline import RIDES
from tests import command_line

PARCELS = """
from pathlib import Path
from braidstream import Event, EventType, Topic, pipeline

class Parcel(Event):
    parcel_id: str

PARCELS = pipeline(
    Topic("parcel_sent", EventType.load(Parcel, "parcel_sent", Path(__file__).parent), "parcel_id"),
    predictions="parcel_predictions",
    decisions="parcel_decisions",
    decision_state="parcel_state",
    dead_letters="dead_letters",
)
HEAVY = 30
"""
SCHEMA = '{"type": "record", "name": "Parcel", "fields": [{"name": "parcel_id", "type": "string"}]}'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project's folder, current, with a pipeline in a package that is installed nowhere."""
    package = tmp_path / "parcels_of_a_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "pipeline.py").write_text(PARCELS)
    (package / "parcel_sent.v1.avsc").write_text(SCHEMA)
    (package / "broken.py").write_text("import no_such_module_of_a_test")
    (package / "wrong.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("parcels_of_a_test")]:
        del sys.modules[name]


def install(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = project / "parcels_of_a_test-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parcels-of-a-test\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{plugins.PIPELINES}]\nparcels = parcels_of_a_test.pipeline:PARCELS\n")
    monkeypatch.syspath_prepend(str(project))


def test_a_pipeline_of_the_current_folder(project: Path) -> None:
    found = plugins.pipeline("parcels_of_a_test.pipeline:PARCELS")

    assert isinstance(found, Pipeline)
    assert found.subjects.name == "parcel_sent"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("parcels_of_a_test.pipeline:", "is not module:ATTRIBUTE, as in moderation.pipeline:MODERATION"),
        (":PARCELS", "is not module:ATTRIBUTE"),
        ("parcels_of_a_test/pipeline.py:PARCELS", "is not module:ATTRIBUTE"),
        ("parcels_of_a_test.pipelin:PARCELS", "there is no module parcels_of_a_test.pipelin, neither in /"),
        ("no_such_module_of_a_test:X", "there is no module no_such_module_of_a_test, neither in /"),
        ("parcels_of_a_test.pipeline:PARCEL", "has no PARCEL: it has parcels_of_a_test.pipeline:PARCELS"),
        ("parcels_of_a_test.pipeline:HEAVY", "is no braidstream.Pipeline but a int: it has parcels_of_a_test.pipe"),
        ("parcels_of_a_test:PARCELS", "has no PARCELS: it has no pipeline"),
        (
            "parcels_of_a_test.pipeline",
            "is not module:ATTRIBUTE, but a module: it has parcels_of_a_test.pipeline:PARCELS",
        ),
        ("parcels_of_a_test.pipelin", "there is no module parcels_of_a_test.pipelin, neither in /"),
        ("parcels_of_a_test/pipeline.py", "is not module:ATTRIBUTE, as in moderation.pipeline:MODERATION"),
        ("parcels_of_a_test.broken:X", "cannot be loaded: No module named 'no_such_module_of_a_test'"),
        ("parcels_of_a_test.wrong:X", "cannot be loaded: ZeroDivisionError: division by zero"),
    ],
)
def test_an_address_that_is_wrong_is_refused_with_what_there_is(project: Path, address: str, why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        plugins.pipeline(address)

    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_pipeline_is_found_by_its_topic(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(project, monkeypatch)

    assert plugins.pipeline_with("parcel_decisions", None).subjects.name == "parcel_sent"
    assert plugins.pipeline_with("decisions", None) is RIDES
    assert plugins.pipeline_with("decisions", "parcels").subjects.name == "parcel_sent"
    with pytest.raises(SettingsError, match="dead_letters is a topic of parcels, rides: choose one of them"):
        plugins.pipeline_with("dead_letters", None)
    with pytest.raises(SettingsError, match=r"no installed pipeline has a topic letters: .* \(parcels, rides\)"):
        plugins.pipeline_with("letters", None)


def test_a_pipeline_that_is_named_needs_no_installed_one(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    found = plugins.pipeline_with("parcel_sent", "parcels_of_a_test.pipeline:PARCELS")
    assert found.subjects.name == "parcel_sent"


def test_any_topic_may_be_read_where_one_pipeline_is_installed() -> None:
    assert plugins.pipeline_with("somebody_elses", None) is RIDES


def test_the_command_line_imports_from_the_current_folder(project: Path) -> None:
    named = command_line.run("tail", "x", "--pipeline", "parcels_of_a_test.pipeline:NONE", settings={})
    set_once = command_line.run("tail", "x", settings={"BRAIDSTREAM_PIPELINE": "parcels_of_a_test.pipeline:NONE"})

    for wrong in (named, set_once):
        assert wrong.returncode == 2
        assert "the module parcels_of_a_test.pipeline has no NONE" in wrong.stderr
        assert "Traceback" not in wrong.stderr
