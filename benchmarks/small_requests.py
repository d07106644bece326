"""What a service costs a request, above the core; and Serve with deployments that do nothing.

Requests leave one after another on one connection, in blocks that take turns with the core alone:
what a shared machine does to one it does to the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ray import serve
from starlette.requests import Request

from benchmarks.local_serve import local_serve, wait_until
from benchmarks.open_loop import keep_busy, summarise
from serve_app.http.proxy import HAPROXY, variables

Ask = Callable[[dict[str, Any]], None]
Bodies = Callable[[int], list[dict[str, Any]]]


@serve.deployment
class Behind:
    """Does nothing, where a scorer would be."""

    async def __call__(self) -> str:
        """Return no text."""
        return ""


@serve.deployment
class Front:
    """Does nothing but ask what is behind it, if anything is."""

    def __init__(self, behind: Any = None) -> None:
        self._behind = behind

    async def __call__(self, request: Request) -> str:
        """Answer a request; an unread body would end the connection."""
        await request.body()
        return await self._behind.remote() if self._behind else ""


@contextlib.contextmanager
def stock_serve(deployments: int) -> Iterator[str]:
    """Serve one or two deployments that do nothing; yields the base URL."""
    application = Front.bind(Behind.bind()) if deployments == 2 else Front.bind()
    with local_serve() as url:
        serve.run(application, name="bench", route_prefix="/")
        wait_until(f"{url}/health/ready")
        yield url


@contextlib.contextmanager
def proxied(*, haproxy: bool, more: Mapping[str, str]) -> Iterator[None]:
    """Let a Ray that starts inside use HAProxy, as `rerank-serve` would, or Serve's own proxy."""
    before = dict(os.environ)
    os.environ.update({HAPROXY: str(int(haproxy)), **more})
    os.environ.update(variables(os.environ))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Connection:
    """One kept connection, a request in one segment; what a client library adds is left out."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._address = host, int(port)
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(self._address, timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path: str, body: bytes) -> float:
        """Return the seconds to a whole answer. Raises RuntimeError for one that is not 200."""
        host = f"host: {self._address[0]}"
        lines = f"POST {path} HTTP/1.1", host, "content-type: application/json"
        head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode()
        begun = time.perf_counter()
        self._socket.sendall(head + body)
        answer = http.client.HTTPResponse(self._socket, method="POST")
        answer.begin()
        answer.read()
        took = time.perf_counter() - begun
        if answer.will_close:
            # HAProxy, which Serve starts anew when replicas change.
            self._socket.close()
            self._connect()
        if answer.status != 200:
            raise RuntimeError(f"a request was answered with {answer.status}")
        return took

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def overhead(
    url: str, ask: Ask, bodies: Bodies, counts: Mapping[int, int], blocks: int
) -> dict[str, Any]:
    """Return the times of a service, of the core beside it, and the difference, in milliseconds.

    `counts` has the requests of a block by their size.
    """
    found = {}
    for size, count in counts.items():
        asked = [bodies(size)[i % 40] for i in range(count)]
        encoded = [json.dumps(body).encode() for body in asked]
        service, core = [], []
        for block in range(blocks + 1):
            ours = posted(url, "/rerank", encoded)
            alone = [seconds(ask, body) for body in asked]
            # The first warms both.
            service += ours if block else []
            core += alone if block else []
        of_service, of_core = percentiles(service), percentiles(core)
        over = {f"over_core_{name}": of_service[name] - of_core[name] for name in of_core}
        named = {**of_service, **{f"core_{name}": value for name, value in of_core.items()}, **over}
        found[str(size)] = {name: round(value, 2) for name, value in named.items()}
    return found


def floor(url: str, count: int, blocks: int) -> dict[str, float]:
    """Return p50 and p99, in milliseconds, of a service that does nothing."""
    times = posted(url, "/", [b"{}"] * count * blocks)
    return {name: round(value, 2) for name, value in percentiles(times).items()}


def posted(url: str, path: str, bodies: Sequence[bytes]) -> list[float]:
    """Return the seconds of each request on one connection, which a first one has warmed.

    Of each block its own: servers close one that is idle for the seconds of a core's turn.
    """
    connection = Connection(url)
    connection.post(path, bodies[0])
    times = [connection.post(path, body) for body in bodies]
    connection.close()
    return times


def requests_per_s(url: str, asked: Sequence[Any], seconds: float, clients: int = 16) -> float:
    """Return how many requests are answered a second; refused ones do not count."""
    asyncio.run(keep_busy(url, asked, clients, min(1.0, seconds)))
    samples = asyncio.run(keep_busy(url, asked, clients, seconds))
    return summarise(samples, seconds).good_per_s


def seconds(ask: Ask, body: dict[str, Any]) -> float:
    """Return how long the core takes for a request."""
    begun = time.perf_counter()
    ask(body)
    return time.perf_counter() - begun


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """Return p50 and p99 in milliseconds."""
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    return {"p50_ms": float(p50), "p99_ms": float(p99)}
