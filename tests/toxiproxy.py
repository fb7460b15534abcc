"""Toxiproxy: a proxy that cuts connections, slows them down or swallows what they carry.

https://github.com/Shopify/toxiproxy; it is built with Go, once, and kept in a folder outside the repository.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.containers import free_ports

VERSION = "v2.12.0"
_MODULE = f"github.com/Shopify/toxiproxy/v2/cmd/server@{VERSION}"
_BUILD_TIMEOUT = 300.0
_START_TIMEOUT = 20.0


def _binary() -> Path:
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache_folder / "braidstream-tests" / f"toxiproxy-{VERSION}" / "server"


@cache
def toxiproxy_missing() -> str | None:
    """Build Toxiproxy unless it is there; why it cannot be used, None when it can."""
    binary = _binary()
    if binary.exists():
        return None
    if (go := shutil.which("go")) is None:
        return f"Toxiproxy is not at {binary}, and there is no Go to build it with"
    try:
        subprocess.run(
            [go, "install", _MODULE],
            env={**os.environ, "GOBIN": str(binary.parent), "GOFLAGS": "-trimpath"},
            capture_output=True,
            text=True,
            timeout=_BUILD_TIMEOUT,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        return f"Toxiproxy cannot be built: {error}: {error.stderr!s}"
    except subprocess.TimeoutExpired as error:
        return f"Toxiproxy cannot be built: {error}"
    return None


class Proxy:
    """One address in front of another, `address`."""

    def __init__(self, toxiproxy: Toxiproxy, name: str, address: str) -> None:
        self._toxiproxy = toxiproxy
        self._path = f"/proxies/{name}"
        self.address = address

    @contextmanager
    def down(self) -> Iterator[None]:
        """Every connection is closed, and new ones are refused."""
        self._toxiproxy.call("POST", self._path, {"enabled": False})
        try:
            yield
        finally:
            self._toxiproxy.call("POST", self._path, {"enabled": True})

    @contextmanager
    def with_toxic(self, kind: str, stream: str = "downstream", **attributes: int) -> Iterator[None]:
        """What goes `upstream` (to the server) or `downstream` is treated so, by Toxiproxy's names."""
        toxic = {"name": "toxic", "type": kind, "stream": stream, "attributes": attributes}
        self._toxiproxy.call("POST", f"{self._path}/toxics", toxic)
        try:
            yield
        finally:
            self._toxiproxy.call("DELETE", f"{self._path}/toxics/toxic")


class Toxiproxy:
    """A running Toxiproxy, by its HTTP API at this port of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        # Whatever proxy the environment names is not for this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def proxy(self, name: str, upstream: str, port: int | None = None) -> Proxy:
        """Listen at this port of 127.0.0.1, or at a free one, and pass on to `upstream`."""
        made = self.call("POST", "/proxies", {"name": name, "listen": f"127.0.0.1:{port or 0}", "upstream": upstream})
        return Proxy(self, name, made["listen"])

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One call of the API; its answer."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self._url}{path}", data, method=method)
        with self._opener.open(request, timeout=10) as response:
            answer = response.read()
        return json.loads(answer) if answer else None


@contextmanager
def run_toxiproxy() -> Iterator[Toxiproxy]:
    """Toxiproxy as a process of its own; it must not be missing."""
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [str(_binary()), "-host", "127.0.0.1", "-port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        toxiproxy = Toxiproxy(port)
        _wait_until_it_answers(toxiproxy, process)
        yield toxiproxy
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_it_answers(toxiproxy: Toxiproxy, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            toxiproxy.call("GET", "/version")
            break
        except urllib.error.URLError:
            assert process.poll() is None, "Toxiproxy has ended"
            assert time.monotonic() < deadline, f"Toxiproxy does not answer within {_START_TIMEOUT:g} s"
            time.sleep(0.05)
