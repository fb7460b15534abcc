"""A local HTTP server that gives months of trips as TLC's does, or fails in every way that a server can."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Fault:
    """What is wrong with an answer: its status, or that after so many bytes it ends, or nothing more comes.

    When it `stalls` and `after` is not given, not even its status comes.
    """

    status: int | None = None
    after: int | None = None
    stalls: bool = False


class Site:
    """The one file that the server has at any path, how it serves it, and what it was asked."""

    def __init__(self, content: bytes) -> None:
        self.url = ""
        self.content = content
        self.tag: str | None = '"1"'
        self.has_ranges = True
        self.gives_parts_unasked = False
        self.minds_versions = True
        self.faults: deque[Fault] = deque()
        self.asked: list[Message] = []
        self.released = threading.Event()

    @property
    def ranges(self) -> list[str | None]:
        """The ranges that were asked for, request by request."""
        return [headers["Range"] for headers in self.asked]

    def start_of(self, headers: Message) -> int | None:
        """Where the part begins that is asked for; None when all of it is to be given."""
        if self.gives_parts_unasked:
            return 0
        asked = re.fullmatch(r"bytes=(\d+)-", headers["Range"] or "")
        if asked is None or not self.has_ranges or (self.minds_versions and headers["If-Range"] != self.tag):
            return None
        return int(asked[1])


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.site.asked.append(self.headers)
        fault = self.site.faults.popleft() if self.site.faults else Fault()
        start = self.site.start_of(self.headers)
        if fault.status is not None:
            self.send_error(fault.status)
        elif fault.stalls and fault.after is None:
            self.site.released.wait()
        elif start is not None and start >= len(self.site.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.site.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._answer(start, fault)

    def _answer(self, start: int | None, fault: Fault) -> None:
        content = self.site.content
        body = content[start or 0 :]
        self.send_response(200 if start is None else 206)
        self.send_header("Content-Length", str(len(body)))
        if self.site.tag is not None:
            self.send_header("ETag", self.site.tag)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(body[: fault.after])
        if fault.stalls:
            self.site.released.wait()


@contextmanager
def served(content: bytes) -> Iterator[Site]:
    """A server of this content, at a free port."""
    site = Site(content)
    handler = type("Handler", (_Handler,), {"site": site})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        site.url = f"http://127.0.0.1:{server.server_address[1]}/trip-data"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield site
        finally:
            site.released.set()
            server.shutdown()
            thread.join()
