"""Fetching a month of TLC's trips: whole and readable, or not at all, and going on where a try before broke off."""

from __future__ import annotations

import fcntl
import http.client
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import Field, field_validator

from braidstream import BraidstreamError, FatalError, RetriableError, Settings, SettingsError
from producer.progress import Shown
from producer.trips import Trips, read_trips

PATIENCE = 30.0
"""Seconds without any data after which a connection is given up."""

PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try, as long as none brings anything new."""

_CHUNK = 256 * 1024
# What is not there is forbidden, as CloudFront sees it.
_MISSING = (403, 404)
_PASSING = (408, 416, 429)
_ADDRESS = re.compile(r"https?://[^\s@?#]+", re.IGNORECASE)


class DownloadSettings(Settings):
    """What a download needs to know."""

    trips_url: str = Field(
        default="https://d37ci6vzurychx.cloudfront.net/trip-data",
        description="Where `python -m producer download` finds the months' parquet files, by TLC's names.",
    )

    @field_validator("trips_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        parts = urllib.parse.urlsplit(url)
        # Encoded as it will be to be looked up, which raises for a name that cannot be.
        host = (parts.hostname or "").encode("idna")
        if not (host and url.isascii() and _ADDRESS.fullmatch(url)) or parts.port == 0:
            raise ValueError("it is no plain address such as https://example.org/trip-data")
        return url.rstrip("/")


def download(
    url: str,
    to: Path,
    shown: Shown,
    *,
    patience: float = PATIENCE,
    pauses: Sequence[float] = PAUSES,
    sleep: Callable[[float], object] = time.sleep,
) -> Trips:
    """Fetch the parquet file at `url`, and return its trips; `to` is there when it is whole and was read, not before.

    What has come is kept beside it, in a file whose name ends with `.part`, for the next try or the next call. Raises
    `SettingsError` when there is no such file, or it is none of trips, or cannot be written, and `FatalError` when it
    does not come.
    """
    part = to.with_name(f"{to.name}.part")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with _alone(part) as file:
            received = _Part(part, file)
            _fetch(url, received, shown, patience=patience, pauses=pauses, sleep=sleep)
            trips = _checked(url, received)
            part.replace(to)
            received.tag.unlink(missing_ok=True)
            return trips
    except OSError as error:
        raise SettingsError(f"{error.filename or part} cannot be written: {error.strerror}") from error


@contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """The file, opened for appending by this process alone; removed when it is empty in the end."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:
            raise FatalError(f"another download is writing {path}: let it end, or stop it")
        try:
            yield file
        finally:
            if not file.tell():
                path.unlink(missing_ok=True)


class _Part:
    """What has come of a file, and the entity tag of the version that it is of, in a file beside it."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.tag = path.with_name(f"{path.name}.etag")
        self.total: int | None = None
        self._file = file

    @property
    def size(self) -> int:
        """How many bytes have come."""
        return self._file.tell()

    def clear(self) -> None:
        """Begin anew."""
        self._file.truncate(0)
        self._file.seek(0)
        self.tag.unlink(missing_ok=True)

    def headers(self) -> dict[str, str]:
        """Ask for the rest of the same version; for all when nothing has come, or nobody knows of what version."""
        if self.size and not self.tag.exists():
            self.clear()
        return {"Range": f"bytes={self.size}-", "If-Range": self.tag.read_text()} if self.size else {}

    def begin(self, answer: http.client.HTTPResponse) -> None:
        """Make ready for what an answer brings, all or the rest; raises `RetriableError` when it is of another part."""
        tag = answer.headers.get("ETag", "")
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
            if found is None or not self.size or int(found[1]) != self.size or tag != self.tag.read_text():
                self.clear()
                raise RetriableError("it answers with another part, or of another version, than was asked for")
            self.total = int(found[2])
            return
        self.clear()
        self.total = answer.length
        # Only a strong tag says that the bytes are the same.
        if tag.startswith('"'):
            self.tag.write_text(tag)

    def append(self, data: bytes) -> None:
        """Keep what came."""
        self._file.write(data)

    def keep(self) -> None:
        """Have all of it on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())


def _fetch(
    url: str, part: _Part, shown: Shown, *, patience: float, pauses: Sequence[float], sleep: Callable[[float], object]
) -> None:
    """Try until all has come, or too many tries in a row have brought nothing new."""
    furthest, failed = part.size, 0
    while True:
        try:
            _try(url, part, shown, patience)
        except RetriableError as error:
            if part.size > furthest:
                furthest, failed = part.size, 0
            if failed == len(pauses):
                of = f" of {part.total:,}" if part.total is not None else ""
                rest = f". {part.size:,}{of} bytes are there, and the same command goes on" if part.size else ""
                raise FatalError(f"{url} does not come: {error}{rest}") from error
            again = f"going on from {part.size / 1e6:,.1f} MB" if part.size else "trying again"
            shown.say(f"{error}; {again} in {pauses[failed]:g} s")
            sleep(pauses[failed])
            failed += 1
        else:
            return


def _try(url: str, part: _Part, shown: Shown, patience: float) -> None:
    """One request for what is missing; raises `RetriableError` when not all of it comes, for what may pass."""
    request = urllib.request.Request(url, headers=part.headers())  # noqa: S310 - the settings take http and https only
    with _network(patience):
        try:
            answer = urllib.request.urlopen(request, timeout=patience)  # noqa: S310
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                if error.headers.get("Content-Range") == f"bytes */{part.size}":
                    return
                part.clear()
            raise _refusal(url, error.code) from None
    with answer:
        part.begin(answer)
        for data in _chunks(answer, patience):
            part.append(data)
            shown(part.size, part.total)
    if part.total is not None and part.size < part.total:
        raise RetriableError("the connection broke off")


def _chunks(answer: http.client.HTTPResponse, patience: float) -> Iterator[bytes]:
    while True:
        with _network(patience):
            data = answer.read1(_CHUNK)
        if not data:
            return
        yield data


@contextmanager
def _network(patience: float) -> Iterator[None]:
    """Raises `RetriableError` for what went wrong on the way."""
    try:
        yield
    except TimeoutError as error:
        raise RetriableError(f"nothing came for {patience:g} s") from error
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: where it was sent on to
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise RetriableError(f"the connection failed: {reason}") from error


def _refusal(url: str, code: int) -> BraidstreamError:
    if code in _MISSING:
        where, _, name = url.rpartition("/")
        return SettingsError(f"{where} has no {name} (HTTP {code}): TLC publishes a month about two months after it")
    said = f"{url} is answered by HTTP {code}"
    return RetriableError(said) if code in _PASSING or code >= 500 else FatalError(said)


def _checked(url: str, part: _Part) -> Trips:
    """The trips of what has come; raises `SettingsError`, and forgets what has come, when a replay would refuse it."""
    part.keep()
    try:
        trips = read_trips([part.path])
        if trips.rides.is_empty():
            raise SettingsError("no row is a ride")
    except SettingsError as error:
        part.clear()
        raise SettingsError(f"what {url} gave was deleted, since it cannot be replayed: {error}") from error
    return trips
