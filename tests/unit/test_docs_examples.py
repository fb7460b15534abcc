"""The pages that show how to begin, followed as they stand on the embedded broker."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.documents import ROOT, blocks
from tests.walkthrough import follow

DOCS = ROOT / "docs"
needs_bash = pytest.mark.skipif(not Path("/bin/bash").exists(), reason="the pages are typed into bash")


@needs_bash
def test_a_model_is_added(tmp_path: Path) -> None:
    printed = follow(DOCS / "add-a-model.md", tmp_path)
    records = tailed(printed)

    assert printed.count("2 passed") == 2
    assert [(record["model"], 1 < record["value"] < 60) for record in records[:3]] == [("speed", True)] * 3
    assert [record["evidence"][0]["model"] for record in records[3:]] == ["speed"] * 3


@needs_bash
def test_a_pipeline_is_added(tmp_path: Path) -> None:
    printed = follow(DOCS / "add-a-pipeline.md", tmp_path)
    *decisions, by_the_installed_name = tailed(printed)
    actions = {record["subject_id"]: record["action"] for record in decisions}

    assert "1 passed" in printed
    assert "2 passed" in printed
    assert len(actions) == 10
    assert (actions["parcel-0"], actions["parcel-9"]) == ("standard", "express")
    assert by_the_installed_name["model"] == "days"


def tailed(printed: str) -> list[dict[str, Any]]:
    """The values of the records that `braidstream tail` printed."""
    return [json.loads(line.split("\t")[3]) for line in printed.splitlines() if re.search(r"\t\d+/\d+\t", line)]


def test_the_tests_of_the_page_on_testing_pass(tmp_path: Path) -> None:
    files = {block.file: block.code for block in blocks(DOCS / "testing.md") if block.file}
    for name, code in files.items():
        (tmp_path / name).write_text(code)

    own_tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(own_tests, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{sum(code.count('def test_') for code in files.values())} passed" in done.stdout
