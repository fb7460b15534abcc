"""`braidstream new consumer`: what it writes works, and it writes over nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import AwareDatetime, Field, NaiveDatetime, field_validator

from braidstream import Event, SettingsError
from braidstream.cli.examples import example_of
from tests import command_line

PIPELINE = """
from pathlib import Path
from typing import TypeVar

from pydantic import AwareDatetime, Field

from braidstream import Event, EventType, Pipeline, Topic, pipeline


class Letter(Event):
    letter_id: str = Field(max_length=8)
    text: str | None = None
    written_at: AwareDatetime


class Ticket(Event):
    ticket_id: str = Field(pattern="t-[0-9]+")
    zone: int = Field(gt=4, le=5)
    price: float | None = Field(None, lt=1.5)


class Knock(Event):
    knock_id: str


class Item(Event):
    item_id: int
    title: str
    price: float | None = None


E = TypeVar("E", bound=Event)


def _pipeline(model: type[E], name: str, key: str) -> Pipeline[E]:
    return pipeline(Topic(name, EventType.load(model, name, Path(__file__).parent), key))


LETTERS = _pipeline(Letter, "letter", "letter_id")
TICKETS = _pipeline(Ticket, "ticket", "ticket_id")
KNOCKS = _pipeline(Knock, "knock", "knock_id")
ITEMS = _pipeline(Item, "item", "item_id")
"""
TIME = {"type": "long", "logicalType": "timestamp-millis"}
SCHEMAS: dict[str, dict[str, Any]] = {
    "letter": {"letter_id": "string", "text": ["null", "string"], "written_at": TIME},
    "ticket": {"ticket_id": "string", "zone": "int", "price": ["null", "double"]},
    "knock": {"knock_id": "string"},
    "item": {"item_id": "long", "title": "string", "price": ["null", "double"]},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, current, with pipelines in a package that is installed nowhere."""
    package = tmp_path / "post"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "pipeline.py").write_text(PIPELINE)
    for name, fields in SCHEMAS.items():
        record = {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields.items()]}
        (package / f"{name}.v1.avsc").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new_consumer(*arguments: str) -> subprocess.CompletedProcess[str]:
    return command_line.run("new", "consumer", *arguments)


def python(project: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=project, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_written_passes_its_test_and_ruff_and_mypy(project: Path) -> None:
    (project / "ticket.json").write_text('{"ticket_id": "t-1"}')
    item = {"title": 'say "hi"\n\\ "" """'}
    (project / "item.json").write_text(json.dumps(item))

    speed = new_consumer("speed", "--pipeline", "rides")
    for arguments in (
        ["tone", "--pipeline", "post.pipeline:LETTERS"],
        ["fraud", "--pipeline", "post.pipeline:TICKETS", "--example", "ticket.json"],
        ["shelf", "--pipeline", "post.pipeline:ITEMS", "--example", "item.json"],
    ):
        written = new_consumer(*arguments)
        assert written.returncode == 0, written.stderr
    assert speed.stdout.startswith("Wrote speed/__init__.py, speed/features.py, speed/train.py, speed/__main__.py, ")
    assert (
        "for the pipeline rides.pipeline:RIDES.\nNot among its features, being no number: pickup_at.\n" in speed.stdout
    )
    assert "ride_id, pickup_at, pickup_zone," in speed.stdout

    names = ("speed", "tone", "fraud", "shelf")
    assert (
        '"pickup_zone",\n    "dropoff_zone",\n    "trip_distance",' in (project / "speed" / "features.py").read_text()
    )
    python(project, "ruff", "check", "--isolated", "--select", "E,F,I,B,UP,RUF", *names)
    python(project, "ruff", "format", "--isolated", "--check", *names)
    python(project, "mypy", "--strict", *names)
    python(project, "pytest", "-q", "-p", "no:cacheprovider", *names)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("price", "models/price holds a model of that name: choose another name"),
        ("my-model", "'my-model' is no name for a Python package"),
        ("class", "'class' is no name for a Python package"),
        ("json", "json would hide the module that there is"),
        ("numpy", "numpy would hide the module that there is"),
        ("__main__", "__main__ would hide the module that there is"),
        ("post", "post is there already, and nothing was written: choose another name"),
        ("tools", "tools.py is there already, and nothing was written: choose another name"),
    ],
)
def test_a_name_that_cannot_be_had_is_refused(project: Path, name: str, why: str) -> None:
    (project / "tools.py").touch()
    (project / "models" / "price").mkdir(parents=True)
    (project / "models" / "price" / "model.json").touch()
    before = sorted(project.rglob("*"))

    refused = new_consumer(name, "--pipeline", "rides")

    assert refused.returncode == 2
    assert why in refused.stderr
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--pipeline", "post.pipeline:KNOCKS"], "Knock has no number and no text besides its key"),
        (
            ["--pipeline", "post.pipeline:TICKETS"],
            "no Ticket can be made up for the test (ticket_id: String should match",
        ),
        (["--pipeline", "post.pipeline:NONE"], "the module post.pipeline has no NONE"),
        (["--pipeline", "post.pipeline:ITEMS", "--example", "null.json"], "price is None in the example, and the test"),
        (
            ["--pipeline", "post.pipeline:ITEMS", "--example", "huge.json"],
            "price is 1e+300 in the example, and the test",
        ),
        (["--example", "none.json"], "none.json cannot be read"),
        (["--example", "list.json"], "list.json is no JSON object"),
    ],
)
def test_what_it_cannot_write_leaves_nothing(project: Path, arguments: list[str], why: str) -> None:
    (project / "list.json").write_text("[]")
    (project / "null.json").write_text('{"price": null}')
    (project / "huge.json").write_text('{"price": 1e300}')

    refused = new_consumer("tone", *arguments)

    assert refused.returncode == 2
    assert why in refused.stderr
    assert not (project / "tone").exists()


class Knock(Event):
    """Part of another event."""

    loud: bool


class Colour(Enum):
    """For an example."""

    RED = "red"


class Everything(Event):
    """Whatever an example can be made up of."""

    text: str = Field(min_length=6)
    content: bytes = Field(min_length=5, max_length=6)
    nested: Knock
    short: str = Field(max_length=2)
    high: Annotated[int, Ge(10), Lt(12)]
    low: Annotated[int, Le(-5)]
    above: Annotated[float, Gt(7)]
    below: Annotated[float, Lt(1)] | None
    flag: bool
    early: Annotated[NaiveDatetime, Lt(datetime(2000, 1, 1))]  # noqa: DTZ001
    late: Annotated[AwareDatetime, Ge(datetime(2030, 1, 1, tzinfo=UTC))]
    words: list[str]
    numbers: dict[str, int]
    kind: Literal["a", "b"]
    colour: Colour


def test_an_example_is_made_up_from_what_the_model_demands() -> None:
    example = example_of(Everything, {"text": "given by hand"})

    assert example.text == "given by hand"
    assert (example.content, example.nested) == (b"textx", Knock(loud=True))
    assert (example.short, example.high, example.low, example.kind) == ("te", 10, -5, "a")


class Even(Event):
    """What nobody can guess."""

    number: int

    @field_validator("number")
    @classmethod
    def _is_even(cls, number: int) -> int:
        if number % 2:
            raise ValueError("odd")
        return number


def test_what_cannot_be_made_up_is_asked_for() -> None:
    with pytest.raises(SettingsError, match=r"no Even can be made up .* \(number: .*give what is missing .* --example"):
        example_of(Even, {})
    assert example_of(Even, {"number": 2}).number == 2
