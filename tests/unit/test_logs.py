"""Logs: one JSON object a line in containers, and librdkafka's own lines at most so often."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from braidstream import logs


@pytest.fixture(autouse=True)
def _own_configuration() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.reset_defaults()
    structlog.configure(**before)


def test_a_line_is_a_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    structlog.get_logger().warning("dead letters", count=3, reason='a "quoted" reason')
    written = capsys.readouterr()
    line = json.loads(written.err)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "dead letters", "level": "warning", "count": 3, "reason": 'a "quoted" reason'}
    assert written.out == ""


def test_it_is_json_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "auto")
    structlog.get_logger().info("started")
    assert json.loads(capsys.readouterr().err)["event"] == "started"


def test_it_is_readable_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "console")
    structlog.get_logger().info("started", reads="rides")
    assert "started" in (line := capsys.readouterr().err)
    assert not line.startswith("{")


def test_lower_levels_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "json")
    structlog.get_logger().info("not shown")
    structlog.get_logger().error("shown")
    assert json.loads(capsys.readouterr().err)["event"] == "shown"


class Clock:
    """A clock to move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def emit(log: logs.ClientLog, line: str, level: int = logging.ERROR) -> None:
    log.emit(logging.LogRecord("librdkafka", level, __file__, 1, line, None, None))


def test_librdkafkas_lines_come_once_in_a_while_by_kind() -> None:
    clock = Clock()
    with capture_logs() as captured:
        log = logs.ClientLog(clock)
        for _ in range(20):
            emit(log, "FAIL [tip#producer-1] refused")
            emit(log, "GETPID [tip#producer-1] retrying", logging.WARNING)
        clock.now += logs.ClientLog.INTERVAL - 0.1
        emit(log, "FAIL [tip#producer-1] refused")
        clock.now += 0.1
        emit(log, "FAIL [tip#producer-1] refused again")
    assert [(entry["line"].split()[0], entry["log_level"]) for entry in captured] == [
        ("FAIL", "error"),
        ("GETPID", "warning"),
        ("FAIL", "error"),
    ]


def test_librdkafkas_advice_on_settings_is_not_logged() -> None:
    with capture_logs() as captured:
        emit(logs.ClientLog(Clock()), "CONFWARN [tip#consumer-1] property is ignored", logging.WARNING)
    assert captured == []


def test_the_clients_logger_has_one_handler_however_often_it_is_asked_for() -> None:
    assert logs.client_logger() is logs.client_logger()
    assert len([handler for handler in logs.client_logger().handlers if isinstance(handler, logs.ClientLog)]) == 1
    assert not logs.client_logger().propagate
