"""The command line `braidstream` in a process of its own, as users start it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

COMMAND = [sys.executable, "-c", "from braidstream.cli import main; main(prog_name='braidstream')"]


def run(*arguments: str, settings: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `settings` are all the settings that it sees."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(settings or {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def started(*arguments: str, settings: Mapping[str, str], stdin: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on, reading what a file descriptor gives; killed in the end if it still does."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment(settings),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    own = (
        "KAFKA_",
        "SCHEMA_REGISTRY_",
        "TOPIC_PREFIX",
        "PARTITIONS",
        "BROKER_TIMEOUT",
        "LOG_",
        "OTEL_",
        "HTTP_PORT",
        "HTTP_HOST",
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return {**inherited, **settings}
