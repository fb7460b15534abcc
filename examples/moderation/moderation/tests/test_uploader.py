"""The command that uploads made videos."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from moderation.uploader import main

PROJECT = Path(__file__).parents[2]


def test_it_uploads_as_many_as_it_is_told_to() -> None:
    braidstream = Path(sys.executable).with_name("braidstream")
    uploading = [sys.executable, "-m", "moderation.uploader", "--count", "20", "--rate", "1000"]
    done = subprocess.run(
        [braidstream, "broker", *uploading], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout) == (0, "20 videos uploaded\n"), done.stderr


def test_without_a_broker_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    result = CliRunner().invoke(main)

    assert result.exit_code == 2
    assert "KAFKA_BOOTSTRAP_SERVERS is not set" in result.output
