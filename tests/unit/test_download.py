"""Fetching a month of trips from a server that does what servers do."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from braidstream.errors import FatalError, SettingsError
from producer.__main__ import cli
from producer.download import PAUSES, download
from producer.progress import PlainProgress, bytes_fetched
from producer.sample import write_sample
from producer.trips import Trips, read_trips
from tests.terminal import CURSOR_OFF, CURSOR_ON, on_terminal
from tests.unit.trip_site import Fault, Site, served

NAME = "green_tripdata_2023-02.parquet"


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("site") / NAME
    write_sample(path, 2000, seed=1, month="2023-02")
    return path


@pytest.fixture
def site(month: Path) -> Iterator[Site]:
    with served(month.read_bytes()) as opened:
        yield opened


class Download:
    """Downloads to a folder, and notes what is said and how long it waits."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.to = folder / NAME
        self.said: list[str] = []
        self.pauses: list[float] = []
        self._site = site

    def __call__(self, patience: float = 10.0) -> Trips:
        shown = PlainProgress(bytes_fetched("green 2023-02"), self.said.append)
        return download(
            f"{self._site.url}/{NAME}", self.to, shown, patience=patience, pauses=PAUSES, sleep=self.pauses.append
        )

    def has(self, part: bytes) -> None:
        """So much of the first version has come before."""
        self.to.parent.mkdir()
        self.to.with_name(f"{NAME}.part").write_bytes(part)
        self.to.with_name(f"{NAME}.part.etag").write_text('"1"')

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.to.parent.iterdir()}


@pytest.fixture
def fetch(site: Site, tmp_path: Path) -> Download:
    return Download(site, tmp_path / "data")


def test_a_month_arrives_whole_and_alone(fetch: Download, site: Site) -> None:
    trips = fetch()
    assert fetch.to.read_bytes() == site.content
    assert fetch.files == {NAME}
    assert trips.rides.equals(read_trips([fetch.to]).rides)
    assert (len(site.asked), fetch.pauses) == (1, [])


def test_a_stall_is_given_up_and_gone_on_from(fetch: Download, site: Site) -> None:
    site.faults.append(Fault(after=4000, stalls=True))
    fetch(patience=0.2)
    assert fetch.to.read_bytes() == site.content
    assert site.ranges == [None, "bytes=4000-"]
    assert site.asked[1]["If-Range"] == '"1"'
    assert fetch.said == ["nothing came for 0.2 s; going on from 0.0 MB in 1 s"]


def test_a_server_that_does_not_even_answer_is_given_up(fetch: Download, site: Site) -> None:
    site.faults += [Fault(stalls=True), Fault(after=0, stalls=True)]
    fetch(patience=0.2)
    assert fetch.to.read_bytes() == site.content
    assert fetch.said == [f"nothing came for 0.2 s; trying again in {pause} s" for pause in (1, 2)]


def test_any_number_of_cuts_is_gone_on_from_as_long_as_something_comes(fetch: Download, site: Site) -> None:
    step = len(site.content) // 9
    site.faults += [Fault(after=step)] * 8
    fetch()
    assert fetch.to.read_bytes() == site.content
    assert site.ranges == [None, *(f"bytes={step * part}-" for part in range(1, 9))]
    assert fetch.pauses == [PAUSES[0]] * 8


def test_when_nothing_new_comes_it_ends_and_the_next_call_goes_on(fetch: Download, site: Site) -> None:
    site.faults += [Fault(after=4000), *[Fault(status=503)] * len(PAUSES)]
    with pytest.raises(FatalError, match=rf"{NAME} does not come: .* HTTP 503. 4,000 of [\d,]+ bytes are there, and"):
        fetch()
    assert fetch.pauses == [*PAUSES]
    assert fetch.files == {f"{NAME}.part", f"{NAME}.part.etag"}
    fetch()
    assert fetch.to.read_bytes() == site.content
    assert site.ranges[-1] == "bytes=4000-"
    assert fetch.files == {NAME}


def test_a_server_without_ranges_begins_anew(fetch: Download, site: Site) -> None:
    site.has_ranges = False
    site.faults.append(Fault(after=4000))
    fetch()
    assert fetch.to.read_bytes() == site.content
    assert site.ranges == [None, "bytes=4000-"]


def test_a_server_without_ranges_that_always_cuts_is_given_up(fetch: Download, site: Site) -> None:
    site.has_ranges = False
    site.faults += [Fault(after=4000)] * 20
    with pytest.raises(FatalError, match="does not come: the connection broke off"):
        fetch()
    assert len(site.asked) == len(PAUSES) + 1


def test_a_part_that_was_not_asked_for_is_refused(fetch: Download, site: Site) -> None:
    site.gives_parts_unasked, site.tag = True, None
    with pytest.raises(FatalError, match="does not come: it answers with another part, or of another version"):
        fetch()
    assert fetch.files == set()


@pytest.mark.parametrize("minds_versions", [True, False])
def test_two_versions_are_never_mixed(fetch: Download, site: Site, minds_versions: bool, tmp_path: Path) -> None:
    site.faults += [Fault(after=4000), *[Fault(status=500)] * len(PAUSES)]
    with pytest.raises(FatalError):
        fetch()
    write_sample(tmp_path / "changed.parquet", 400, seed=2, month="2023-02")
    site.content, site.tag, site.minds_versions = (tmp_path / "changed.parquet").read_bytes(), '"2"', minds_versions
    fetch()
    assert fetch.to.read_bytes() == site.content


@pytest.mark.parametrize("tag", [None, 'W/"1"'])
def test_without_a_strong_tag_it_begins_anew(fetch: Download, site: Site, tag: str | None) -> None:
    site.tag = tag
    site.faults.append(Fault(after=4000))
    fetch()
    assert fetch.to.read_bytes() == site.content
    assert site.ranges == [None, None]


def test_more_than_there_is_begins_anew(fetch: Download, site: Site) -> None:
    fetch.has(bytes(len(site.content) + 1))
    fetch()
    assert fetch.to.read_bytes() == site.content
    assert site.ranges == [f"bytes={len(site.content) + 1}-", None]


def test_what_was_killed_when_all_had_come_is_not_fetched_again(fetch: Download, site: Site) -> None:
    fetch.has(site.content)
    fetch()
    assert fetch.files == {NAME}
    assert site.ranges == [f"bytes={len(site.content)}-"]


@pytest.mark.parametrize("status", [403, 404])
def test_a_month_that_is_not_there(fetch: Download, site: Site, status: int) -> None:
    site.faults.append(Fault(status=status))
    with pytest.raises(
        SettingsError, match=rf"/trip-data has no {NAME} \(HTTP {status}\): TLC publishes a month about"
    ):
        fetch()
    assert fetch.files == set()


def test_what_will_not_pass_is_not_tried_again(fetch: Download, site: Site) -> None:
    site.faults.append(Fault(status=410))
    with pytest.raises(FatalError, match="is answered by HTTP 410"):
        fetch()
    assert len(site.asked) == 1


def test_an_address_that_cannot_be_looked_up_as_of_a_redirection(fetch: Download, site: Site) -> None:
    site.url = "http://example..org"
    with pytest.raises(FatalError, match=r"does not come: the connection failed: .*label empty"):
        fetch()
    assert fetch.files == set()


def test_nobody_listens(fetch: Download, site: Site) -> None:
    site.url = "http://127.0.0.1:1"
    with pytest.raises(FatalError, match=r"does not come: the connection failed: .*refused$"):
        fetch()
    assert fetch.files == set()


def test_a_file_that_a_replay_would_refuse_is_not_kept(fetch: Download, site: Site) -> None:
    site.content = site.content[:4000]
    with pytest.raises(SettingsError, match=r"was deleted, since it cannot be replayed: .* cannot be read as parquet"):
        fetch()
    assert fetch.files == set()


def test_a_file_without_rides_is_not_kept(fetch: Download, site: Site, tmp_path: Path) -> None:
    write_sample(tmp_path / "may.parquet", 5, seed=1, month="2023-05")
    site.content = (tmp_path / "may.parquet").read_bytes()
    with pytest.raises(SettingsError, match="cannot be replayed: no row is a ride"):
        fetch()
    assert fetch.files == set()


def test_two_at_once_are_one_too_many(fetch: Download, site: Site) -> None:
    fetch.to.parent.mkdir()
    part = fetch.to.with_name(f"{NAME}.part")
    with part.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b"what the other one has")
        other.flush()
        with pytest.raises(FatalError, match=r"another download is writing .*\.part: let it end, or stop it"):
            fetch()
        assert part.read_bytes() == b"what the other one has"
    assert site.asked == []


def test_a_folder_that_cannot_be(fetch: Download) -> None:
    fetch.to.parent.write_text("a file")
    with pytest.raises(SettingsError, match="data cannot be written: File exists"):
        fetch()


# As a command


def run(site: Site, folder: Path, *arguments: str) -> Result:
    command = ["download", "--to", str(folder), *arguments]
    return CliRunner().invoke(cli, command, env={"TRIPS_URL": site.url})


def test_months_that_are_there_are_left_alone(site: Site, tmp_path: Path) -> None:
    first = run(site, tmp_path, "--month", "2023-02")
    rides = read_trips([tmp_path / NAME]).rides.height
    assert (first.exit_code, first.stderr) == (0, "")
    assert first.stdout.startswith(f"{tmp_path / NAME}: {rides:,} rides, ")
    (tmp_path / NAME).write_text("mine")
    second = run(site, tmp_path, "--month", "2023-02", "--month", "2023-02")
    assert (second.exit_code, len(site.asked)) == (0, 1)
    assert second.stdout == f"{tmp_path / NAME} is there already, and was left as it is\n" * 2
    assert (tmp_path / NAME).read_text() == "mine"


def test_a_month_that_is_missing_is_a_sentence(site: Site, tmp_path: Path) -> None:
    site.faults.append(Fault(status=403))
    result = run(site, tmp_path, "--month", "2026-09", "--taxi", "yellow")
    assert result.exit_code == 2
    assert "has no yellow_tripdata_2026-09.parquet (HTTP 403): TLC publishes a month about two months" in result.stderr


@pytest.mark.parametrize("text", ["2023-13", "2023", "23-01", "1999-12", "2023-01.parquet", ""])
def test_what_is_no_month(site: Site, tmp_path: Path, text: str) -> None:
    result = run(site, tmp_path, "--month", text)
    assert result.exit_code == 2
    assert f"'{text}' is no month: give it as in 2023-02." in result.stderr


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://example.org",
        "example.org/trips",
        "http://",
        "http://host:port",
        "http://host:65536",
        "http://[",
        "http://example..org",
        "http://example.org/é",
        "http://example.org/trip data",
        "http://example.org/trips?key=1",
        "http://user:password@example.org",
    ],
)
def test_what_is_no_address(site: Site, tmp_path: Path, url: str) -> None:
    site.url = url
    result = run(site, tmp_path, "--month", "2023-02")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: wrong settings: TRIPS_URL: ")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_killed_download_leaves_no_torn_file_and_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    site.faults.append(Fault(after=40_000, stalls=True))
    part = tmp_path / f"{NAME}.part"
    command = [sys.executable, "-m", "producer", "download", "--month", "2023-02", "--to", str(tmp_path)]
    with subprocess.Popen(command, env={**os.environ, "TRIPS_URL": site.url}) as process:
        wait_for(lambda: part.exists() and part.stat().st_size > 8000)
        process.send_signal(signal.SIGKILL)
    assert {path.name for path in tmp_path.iterdir()} == {f"{NAME}.part", f"{NAME}.part.etag"}
    assert run(site, tmp_path, "--month", "2023-02").exit_code == 0
    assert (tmp_path / NAME).read_bytes() == site.content


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gives_the_terminal_back_and_says_how_to_go_on(
    site: Site, tmp_path: Path, number: signal.Signals
) -> None:
    site.faults.append(Fault(after=40_000, stalls=True))
    command = [sys.executable, "-m", "producer", "download", "--month", "2023-02", "--to", str(tmp_path)]
    with on_terminal(command, {**os.environ, "TRIPS_URL": site.url}) as terminal:
        terminal.wait_for(lambda: CURSOR_OFF in terminal.output and (tmp_path / f"{NAME}.part").exists())
        terminal.process.send_signal(number)
        assert terminal.exit_code() == 130
    assert terminal.output.rindex(CURSOR_ON) > terminal.output.rindex(CURSOR_OFF)
    assert "Stopped: the same command goes on from what has come" in terminal.output
