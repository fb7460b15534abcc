"""A local HTTP server in the place of a schema registry."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NOT_FOUND = (404, b'{"error_code":40403,"message":"not found"}')


class Registry(ThreadingHTTPServer):
    """A server on a free port: gives the `answers` by method and path, 404 for others, and keeps what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.authorization: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One request to the registry."""

    server: Registry

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call = f"{self.command} {self.path}"
        self.server.asked.append((call, json.loads(body) if body else None))
        self.server.authorization = self.headers.get("Authorization")
        status, text = self.server.answers.get(call, NOT_FOUND)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names that the base class calls

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def run_registry() -> Iterator[Registry]:
    """A registry that has nothing yet."""
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
