"""The worker's state in a file, and what a container's health check makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from braidstream.errors import FatalError
from braidstream.health import STALE, HealthFile, check


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "health"


class Clock:
    """A clock to move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_worker_that_goes_on_is_healthy(path: Path) -> None:
    clock = Clock()
    HealthFile(path, clock).beat(None, 4)
    clock.now += 2
    assert check(path, clock).startswith("ready")


def test_a_member_without_partitions_is_ready(path: Path) -> None:
    HealthFile(path, Clock()).beat(None, 0)
    check(path, Clock())


def test_a_worker_that_restores_is_not_ready(path: Path) -> None:
    HealthFile(path, Clock()).beat("restoring partitions [1] of decision_state", 4)
    with pytest.raises(FatalError, match=r"not ready: restoring partitions \[1\]"):
        check(path, Clock())


def test_a_worker_that_stands_still_is_not_healthy(path: Path) -> None:
    clock = Clock()
    HealthFile(path, clock).beat(None, 4)
    clock.now += STALE + 1
    with pytest.raises(FatalError, match="has not turned for 31 s"):
        check(path, clock)


@pytest.mark.parametrize("content", [None, "", "{"])
def test_a_file_that_is_missing_or_broken_is_not_healthy(path: Path, content: str | None) -> None:
    if content is not None:
        path.write_text(content)
    with pytest.raises(FatalError, match="HEALTH_FILE"):
        check(path, Clock())


def test_it_writes_once_a_second_and_whenever_its_state_changes(path: Path) -> None:
    clock = Clock()
    health = HealthFile(path, clock)

    def beat(after: float, waiting_for: str | None) -> float:
        clock.now += after
        health.beat(waiting_for, 4)
        return float(json.loads(path.read_text())["at"])

    assert beat(0, None) == 1000
    assert beat(0.5, None) == 1000
    assert beat(0.1, "restoring") == 1000.6
    assert beat(0.1, None) == pytest.approx(1000.7)
    assert beat(1.0, None) == pytest.approx(1001.7)
    assert [file.name for file in path.parent.iterdir()] == ["health"]


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    HealthFile(None, Clock()).beat(None, 4)
    assert list(tmp_path.iterdir()) == []
