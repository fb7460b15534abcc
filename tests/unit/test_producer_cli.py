"""`python -m producer` as users start it, with librdkafka's own in-process broker at the other end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer, TopicPartition

from braidstream.avro import Codec, LocalSchemas
from producer.__main__ import cli
from producer.resume import read_position
from producer.sample import write_sample
from producer.trips import read_trips, rides
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted

PARTITIONS = 4
DEADLINE = 30.0
QUIET = {"log_level": "0"}


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    client = Producer({"test.mock.num.brokers": "1", **QUIET})
    (address,) = client.list_topics(timeout=10).brokers.values()
    yield f"{address.host}:{address.port}"
    del client


@pytest.fixture
def trips(tmp_path: Path) -> Path:
    """200 trips of a month, of which 1 is no ride."""
    path = tmp_path / "green_2023-02.parquet"
    write_sample(path, 200, seed=1, month="2023-02")
    pl.read_parquet(path).with_columns(
        PULocationID=pl.when(pl.int_range(pl.len()) == 7).then(999).otherwise(pl.col("PULocationID").fill_null(1))
    ).write_parquet(path)
    return path


@pytest.fixture
def environment(broker: str, topic_prefix: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "SCHEMA_"))}
    return {**kept, "KAFKA_BOOTSTRAP_SERVERS": broker, "TOPIC_PREFIX": topic_prefix, "LOG_LEVEL": "error"}


def run(environment: Mapping[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "producer", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


class Reader:
    """Reads what has been written to the test's own `ride_started`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._topic = environment["TOPIC_PREFIX"] + RIDES.subjects.name
        event_type = RIDES.subjects.event_type
        self._codec = Codec(event_type, LocalSchemas(event_type), self._topic)
        servers = environment["KAFKA_BOOTSTRAP_SERVERS"]
        settings = {"bootstrap.servers": servers, "group.id": "test", "auto.offset.reset": "earliest"}
        self._consumer = Consumer({**settings, "fetch.wait.max.ms": "10", "allow.auto.create.topics": "true", **QUIET})
        self._consumer.assign([TopicPartition(self._topic, number, 0) for number in range(PARTITIONS)])

    def read(self, count: int) -> list[RideStarted]:
        """The next `count` rides, in the order of their partitions; fewer when these do not come in time."""
        events: list[RideStarted] = []
        end = time.monotonic() + DEADLINE
        while len(events) < count and time.monotonic() < end:
            for message in self._consumer.consume(count - len(events), 0.2):
                if message.error() is None:
                    event = self._codec.decode(message.value())
                    assert message.key() == event.ride_id.encode()
                    events.append(event)
        return events

    def total(self) -> int:
        """How many rides there are."""
        ends = (
            self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), timeout=10)
            for number in range(PARTITIONS)
        )
        return sum(high for _, high in ends)

    def close(self) -> None:
        self._consumer.close()


@pytest.fixture
def reader(environment: Mapping[str, str]) -> Iterator[Reader]:
    opened = Reader(environment)
    yield opened
    opened.close()


def test_replays_every_ride_once(environment: Mapping[str, str], reader: Reader, trips: Path) -> None:
    done = run(environment, trips)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("199 rides sent, 199 acknowledged, 1 row rejected (1 zone outside 1..265), ")
    sent = reader.read(199)
    assert reader.total() == 199
    expected = {ride.ride_id: ride for ride in rides(read_trips([trips]).rides)}
    assert {ride.ride_id: ride for ride in sent} == expected


def test_limit_takes_the_earliest_rides(environment: Mapping[str, str], reader: Reader, trips: Path) -> None:
    done = run(environment, "--limit", "20", "--rate", "1000", trips)
    assert done.stdout.startswith("20 rides sent, 20 acknowledged")
    sent = {ride.ride_id for ride in reader.read(20)}
    assert reader.total() == 20
    assert sent == {*read_trips([trips]).rides["ride_id"].head(20)}


def test_new_ids(environment: Mapping[str, str], reader: Reader, trips: Path) -> None:
    assert run(environment, "--new-ids", "--limit", "20", trips).returncode == 0
    assert run(environment, "--new-ids", "--limit", "20", trips).returncode == 0
    sent = {ride.ride_id for ride in reader.read(40)}
    assert len(sent) == 40
    assert not sent & {*read_trips([trips]).rides["ride_id"]}


def test_start_at_leaves_out_what_is_earlier(environment: Mapping[str, str], reader: Reader, trips: Path) -> None:
    chosen = read_trips([trips]).rides.filter(pl.col("pickup_at") >= datetime(2023, 2, 15, 8))  # noqa: DTZ001
    done = run(environment, "--start-at", "2023-02-15T08:00", "--limit", "20", trips)
    assert done.stdout.startswith("20 rides sent")
    assert {ride.ride_id for ride in reader.read(20)} == {*chosen["ride_id"].head(20)}
    done = run(environment, "--start-at", str(199 - chosen.height + 21), trips)
    assert done.stdout.startswith(f"{chosen.height - 20} rides sent")
    assert {ride.ride_id for ride in reader.read(chosen.height - 20)} == {*chosen["ride_id"][20:]}


def test_a_loop_repeats_the_rides_under_new_ids(environment: Mapping[str, str], reader: Reader, trips: Path) -> None:
    done = run(environment, "--loop", "--limit", "450", "--rate", "500..5000/100s", trips)
    assert done.stdout.startswith("450 rides sent, 450 acknowledged")
    sent = reader.read(450)
    assert reader.total() == 450
    assert len({ride.ride_id for ride in sent}) == 450
    pickups = read_trips([trips]).rides["pickup_at"]
    assert sorted(ride.pickup_at for ride in sent) == sorted([*pickups, *pickups, *pickups.head(52)])


@pytest.mark.parametrize("options", [[], ["--loop", "--limit", "450"]], ids=["once", "loop"])
def test_a_killed_replay_goes_on_without_leaving_a_ride_out(
    environment: Mapping[str, str], reader: Reader, trips: Path, tmp_path: Path, options: list[str]
) -> None:
    position = tmp_path / "replay.json"
    command = [sys.executable, "-m", "producer", str(trips), "--resume", str(position), *options]
    with subprocess.Popen([*command, "--speedup", "100000"], env=environment) as process:
        noted = when_noted(position)
        process.kill()
    count = 450 if options else 199
    done = run(environment, *command[3:])
    assert done.returncode == 0
    assert done.stderr.startswith("Going on after ")
    total = reader.total()
    counts = Counter(ride.ride_id for ride in reader.read(total))
    assert len(counts) == count
    assert 0 < noted <= count - (total - count)
    again = run(environment, *command[3:])
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == f"All {count} rides were acknowledged before, as {position} says\n"
    assert reader.total() == total


def when_noted(path: Path) -> int:
    """How many rides are noted to be acknowledged, once some are."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        position = read_position(path)
        if position is not None and position.acknowledged:
            return position.acknowledged
        time.sleep(0.01)
    raise AssertionError("nothing was noted")


def test_rejects_are_written(environment: Mapping[str, str], trips: Path, tmp_path: Path) -> None:
    assert run(environment, "--rejects", tmp_path / "rejects.csv", trips).returncode == 0
    (reject,) = pl.read_csv(tmp_path / "rejects.csv").to_dicts()
    assert (reject["file"], reject["row"], reject["pickup_zone"]) == (str(trips), 8, 999)
    assert reject["reason"] == "zone outside 1..265"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_stops_the_sending_and_nothing_sent_is_lost(
    environment: Mapping[str, str], reader: Reader, trips: Path, number: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "producer", "--rate", "5", str(trips)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert len(reader.read(2)) == 2
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (code, "")
    total = reader.total()
    assert 2 <= total < 199
    said, how_to_go_on = out.splitlines()
    assert said.startswith(f"Stopped by {number.name}: {total} rides sent, {total} acknowledged, ")
    assert how_to_go_on == f"The same command with --start-at {total + 1} sends the rest"


def test_progress_bar_on_a_terminal(environment: Mapping[str, str], trips: Path) -> None:
    screen, terminal = os.openpty()
    command = [sys.executable, "-m", "producer", str(trips)]
    environment = {**environment, "TERM": "xterm"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=terminal):
        os.close(terminal)
        shown = everything_on(screen)
    assert "199/199" in shown
    assert "rides/s" in shown


def everything_on(screen: int) -> str:
    """What is shown until the last program has left the terminal."""
    with os.fdopen(screen, "rb", buffering=0) as file:
        shown = b""
        try:
            while part := file.read(4096):
                shown += part
        except OSError as error:
            if error.errno != errno.EIO:  # that is how Linux says that nobody holds the other end
                raise
        return shown.decode()


def test_a_broker_that_does_not_answer(environment: Mapping[str, str], trips: Path) -> None:
    done = run({**environment, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "BROKER_TIMEOUT": "1"}, trips)
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_broker_named(environment: Mapping[str, str], trips: Path) -> None:
    done = run({**environment, "KAFKA_BOOTSTRAP_SERVERS": ""}, trips)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: KAFKA_BOOTSTRAP_SERVERS is not set")


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(cli, ["--version"], prog_name="python -m producer").output == (
        f"python -m producer, version {version('braidstream')}\n"
    )


def refused(*arguments: str | Path) -> str:
    """What is said when these arguments are refused."""
    result = CliRunner().invoke(cli, [*map(str, arguments)])
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'FILE...'"),
        (["--rate", "10", "--speedup", "60", "t.csv"], "--rate and --speedup exclude each other"),
        (["--rate", "0", "t.csv"], "'0' is not a number above 0"),
        (["--rate", "nan", "t.csv"], "'nan' is not a number above 0"),
        (["--speedup", "-2", "t.csv"], "'-2' is not a number above 0"),
        (["--speedup", "inf", "t.csv"], "'inf' is not a number above 0"),
        (["--rate", "0..10/60s", "t.csv"], "'0' is not a number above 0"),
        (["--rate", "1../60s", "t.csv"], "'1../60s' is no change of the rate"),
        (["--rate", "1..10/0s", "t.csv"], "'0' is not a number above 0"),
        (
            ["--rate", "1..10/60", "t.csv"],
            "'1..10/60' is no change of the rate: give it as in 100..2000/60s (s, m or h)",
        ),
        (["--rate", "1..10", "t.csv"], "'1..10' is no change of the rate"),
        (["--rate", "1.2.3..10/60s", "t.csv"], "'1.2.3' is not a number above 0"),
        (["--start-at", "0", "t.csv"], "'0' is neither a time, as in 2023-02-03T08:00, nor a ride's number from 1 on"),
        (["--start-at", "8:00", "t.csv"], "'8:00' is neither a time"),
        (["--start-at", "2023-02-03T08:00Z", "t.csv"], "has a time zone: pickups are in the city's time"),
        (["--loop", "--new-ids", "t.csv"], "--loop gives new ids already"),
        (["--resume", "r", "--rejects", "r", "t.csv"], "--rejects and --resume name the same file"),
        (["--limit", "0", "t.csv"], "0 is not in the range"),
        (["--speed", "1", "t.csv"], "No such option '--speed'"),
        (["absent.parquet"], "absent.parquet does not exist"),
        (["sample"], "Missing argument 'OUT'"),
        (["sample", "t.json"], "t.json is neither .parquet nor .csv by its name"),
        (["sample", "t.csv", "--rows", "0"], "0 is not in the range"),
        (["sample", "t.csv", "--month", "May"], "'May' is no month: give it as in 2023-02"),
        (["sample", "t.csv", "--month", ""], "'' is no month: give it as in 2023-02"),
    ],
)
def test_wrong_arguments_get_a_sentence(arguments: list[str], message: str) -> None:
    said = refused(*arguments)
    assert "Error: " in said
    assert message in said


def test_rejects_must_not_overwrite_the_trips(trips: Path) -> None:
    before = trips.read_bytes()
    assert "--rejects would overwrite the trips" in refused("--rejects", trips, trips)
    assert trips.read_bytes() == before


def test_rejects_that_cannot_be_written(trips: Path, tmp_path: Path) -> None:
    assert "cannot be written" in refused("--rejects", tmp_path / "absent" / "rejects.csv", trips)


def test_a_file_without_any_ride_says_why_and_keeps_the_rejects(tmp_path: Path) -> None:
    trips = tmp_path / "green_2022-05.parquet"
    write_sample(tmp_path / "t.parquet", 5, seed=1, month="2023-02")
    (tmp_path / "t.parquet").rename(trips)
    said = refused("--rejects", tmp_path / "rejects.csv", trips)
    assert f"no row of {trips} is a ride: 5 rows rejected (5 pickup outside the file's month)" in said
    assert pl.read_csv(tmp_path / "rejects.csv").height == 5


def test_help_has_examples() -> None:
    for arguments in (["--help"], ["sample", "--help"]):
        result = CliRunner().invoke(cli, arguments, prog_name="python -m producer")
        assert result.exit_code == 0
        assert "Examples:\n    python -m producer " in result.stdout


def test_sample(tmp_path: Path) -> None:
    path = tmp_path / "trips_2024-05.csv"
    result = CliRunner().invoke(cli, ["sample", str(path), "--rows", "300", "--seed", "9"])
    assert (result.exit_code, result.stdout) == (0, f"300 synthetic trips written to {path}\n")
    again = CliRunner().invoke(cli, ["sample", str(path)])
    assert (again.exit_code, "give another name, or replace it with --force" in again.stderr) == (2, True)
    assert CliRunner().invoke(cli, ["sample", str(path), "--rows", "300", "--force"]).exit_code == 0
    assert read_trips([path]).rides["pickup_at"].dt.strftime("%Y-%m").unique().to_list() == ["2024-05"]
