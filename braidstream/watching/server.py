"""A small HTTP server for health checks and scrapes, on threads that end with the process."""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

import structlog

from braidstream.errors import SettingsError
from braidstream.watching.client import address_of

_SLOWEST_CLIENT = 10.0


class Page(NamedTuple):
    """What a request is answered with."""

    status: int
    content_type: str
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    timeout = _SLOWEST_CLIENT

    def do_GET(self) -> None:
        make = self.server.pages.get(urlsplit(self.path).path)
        page = make() if make is not None else self._not_found()
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        self.wfile.write(page.body)

    def _not_found(self) -> Page:
        known = " ".join(self.server.pages)
        return Page(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", f"there is {known}\n".encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line for every check would drown the log."""


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], Page]]) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]
        self.pages = pages
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind without asking for the name of the address, which takes seconds where no name server answers."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no error of this worker."""
        error = sys.exception()
        if not isinstance(error, OSError):
            structlog.get_logger().error("a request was not answered", client=client_address, exc_info=error)


class Server:
    """Answers GET requests, each path with its page, from when it is made until it is closed."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], Page]]) -> None:
        """Port 0 takes any that is free. Raises `SettingsError` when the address cannot be had."""
        try:
            self._listener = _Listener(host, port, pages)
        except OSError as error:
            raise SettingsError(f"HTTP_PORT={port} of HTTP_HOST={host} cannot be listened on: {error}") from error
        self.address = address_of(host, self._listener.server_address[1])
        self._thread = threading.Thread(target=self._listener.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()
