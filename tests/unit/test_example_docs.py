"""The example's README says what is there: its settings, paths, modules, and what is measured."""

from __future__ import annotations

import importlib.util
import re

import pytest
from pydantic_core import PydanticUndefined

from braidstream.settings import Settings
from moderation.decisions.policy import REMOVE_AT, REVIEW_AT, ModerationSettings
from moderation.notifications.ranking import NotificationSettings
from moderation.synthetic.fingerprints import WORKS
from moderation.synthetic.subscribers import SUBSCRIBERS
from tests.documents import ROOT, commands, links, spans, table

FOLDER = ROOT / "examples" / "moderation"
README = FOLDER / "README.md"


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("### Settings of the policy", ModerationSettings),
        ("### Settings of the notifications", NotificationSettings),
    ],
)
def test_every_setting_of_its_own_is_listed_with_its_default_and_meaning(heading: str, kind: type[Settings]) -> None:
    fields = {name: kind.model_fields[name] for name in kind.__annotations__}

    assert table(README, heading) == [
        (f"`{name.upper()}`", _shown(field.default), str(field.description)) for name, field in fields.items()
    ]


def _shown(default: object) -> str:
    if default is PydanticUndefined:
        return "see below"
    return f"`{','.join(default) if isinstance(default, tuple) else default}`"


def test_every_threshold_is_listed() -> None:
    rows = {row[0].strip("`"): (row[3], row[4]) for row in table(README, "| service |")}

    assert rows == {name: (f"{REMOVE_AT[name]:g}", f"{REVIEW_AT[name]:g}") for name in REMOVE_AT}


def test_how_much_is_made_is_as_it_says() -> None:
    text = README.read_text()

    assert f"{WORKS:,} random ones" in text
    assert f"the same {SUBSCRIBERS:,}" in text


def test_every_path_and_link_exists() -> None:
    paths = {span for span in spans(README) if re.fullmatch(r"(moderation|tests)(/[\w.]*)+", span)}
    assert {path for path in paths if not (FOLDER / path).exists() and not (ROOT / path).exists()} == set()
    assert all(link.startswith("https://") or (FOLDER / link).exists() for link in links(README))


def test_every_module_that_is_run_can_be() -> None:
    modules = {words[2] for _, words in commands(README) if words[:2] == ["python", "-m"] and "$" not in words[2]}
    for module in modules:
        assert importlib.util.find_spec(module) is not None, module
