"""The commands of the documents, typed as they stand, beside workers on real Kafka that the README's have started."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Message, Producer

from braidstream.streaming.dead_letters import dead_letter
from producer.sample import write_sample
from producer.trips import read_trips
from tests import command_line, documented
from tests.documents import ROOT
from tests.unit.trip_site import served

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(not Path("/bin/bash").exists(), reason="the commands are typed into bash"),
]

TRIPS = 800
PATIENCE = 120.0
_GOES_ON = re.compile(r"braidstream (top\b|.*--follow|tail (?!.*(--limit|--to-end)))")
_RIDE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Desk:
    """A folder with two months of trips, a shell in it, and what was started from it.

    In what is typed, the broker, a ride and a folder are those of the test, and `jq` is left out where there is none.
    """

    def __init__(self, folder: Path, broker: str, site: str) -> None:
        self.folder = folder
        self.broker = broker
        self.ride = ""
        self._started = ExitStack()
        settings = {"TOPIC_PREFIX": f"test-{uuid4().hex[:12]}-", "LOG_LEVEL": "error", "BROKER_TIMEOUT": "30"}
        program = Path(sys.executable).parent
        self.environment = {
            **command_line.environment({**settings, "TRIPS_URL": site}),
            "PYTHONPATH": str(ROOT),
            "PATH": f"{program}{os.pathsep}{os.environ['PATH']}",
        }

    def close(self) -> None:
        """End what was started."""
        self._started.close()

    def type(self, line: str) -> None:
        """Type a line and wait until it is done; of one that goes on, only until it shows something."""
        if line.startswith("export "):
            name, _, value = self._here(line).removeprefix("export ").partition("=")
            self.environment[name] = value
        elif line.endswith(" &"):
            process = self._started.enter_context(self._begun(line.removesuffix(" &")))
            self._started.callback(process.kill)
        elif _GOES_ON.match(line):
            self._look_and_stop(line)
        else:
            self._run(line)

    def _here(self, line: str) -> str:
        for there, here in (("localhost:9092", self.broker), ("/srv/trips", "trips")):
            line = line.replace(there, here)
        line = _RIDE_ID.sub(self.ride, line)
        return line if shutil.which("jq") else re.sub(r"\| jq .*", "| cat", line)

    def _run(self, line: str) -> None:
        done = subprocess.run(
            ["timeout", f"{PATIENCE}", "/bin/bash", "-o", "pipefail", "-c", self._here(line)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert "Traceback" not in done.stdout

    def _begun(self, line: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["/bin/bash", "-c", f"exec {self._here(line)}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def _look_and_stop(self, line: str) -> None:
        with self._begun(line) as process:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], PATIENCE)[0], "it shows nothing"
            process.send_signal(signal.SIGINT)
            shown = process.stdout.read().decode()
            assert process.wait(PATIENCE) == 130, shown


@pytest.fixture(scope="module")
def desk(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Where the README's commands have started everything, all rides are decided, and some records were bad."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "data").mkdir()
    for seed, month in enumerate(("2023-01", "2023-02")):
        write_sample(folder / "data" / f"green_tripdata_{month}.parquet", TRIPS, seed, month)
    replayed = folder / "data" / "green_tripdata_2023-02.parquet"
    rides = read_trips([replayed]).rides["ride_id"]
    with served((folder / "data" / "green_tripdata_2023-01.parquet").read_bytes()) as site:
        found = Desk(folder, kafka, site.url)
        try:
            for line in documented.start():
                found.type(line)
            found.type(f"braidstream tail decisions --from-beginning --limit {len(rides)}")
            write_letters(found)
            found.ride = rides[0]
            yield found
        finally:
            found.close()


def write_letters(desk: Desk) -> None:
    """As many dead letters in partition 3 as make 3:17 the last one."""
    prefix = desk.environment["TOPIC_PREFIX"]
    producer = Producer({"bootstrap.servers": desk.broker})
    for offset in range(18):
        source = Message(topic=f"{prefix}ride_started", partition=3, offset=offset, key=b"ride", value=b"not Avro")
        topic, partition, key, value, headers = dead_letter(
            f"{prefix}dead_letters", source, ValueError("no such zone"), f"{prefix}duration"
        )
        producer.produce(topic, value, key, partition=partition, headers=list(headers))
    assert producer.flush(PATIENCE) == 0


@pytest.mark.parametrize("line", documented.at_the_desk())
def test_a_command_does_what_it_says(desk: Desk, line: str) -> None:
    desk.type(line)


def test_the_demo_on_kafka(desk: Desk) -> None:
    """`make` runs where it finds nothing to install."""
    makefile = f"make -f {ROOT}/Makefile BIN={Path(sys.executable).parent} -o .venv/runtime.stamp"
    desk.type(f"TOPIC_PREFIX=$TOPIC_PREFIX-demo- {makefile} demo TRIPS=data/green_tripdata_2023-02.parquet RIDES=200")
