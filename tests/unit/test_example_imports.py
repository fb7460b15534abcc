"""The example is a project of its own: it rests on the framework alone, as a user's does."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import ROOT

FILES = sorted((ROOT / "examples" / "moderation").rglob("*.py"))
FRAMEWORK = {
    "braidstream",
    "braidstream.cli",
    "braidstream.demo",
    "braidstream.testing",
    "braidstream.training",
}
LIBRARIES = {"annotated_types", "click", "numpy", "pydantic", "pydantic_settings", "pytest", "sklearn"}


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_example_uses_the_public_names_of_the_framework_and_libraries_alone(file: Path) -> None:
    own = LIBRARIES | sys.stdlib_module_names | {"moderation"}
    modules = {name for name in _imported(file) if name.split(".")[0] not in own}

    assert modules - FRAMEWORK == set()
