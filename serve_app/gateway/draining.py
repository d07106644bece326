"""How a gateway stops: who comes is refused, who is here is answered. It knows no HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from serve_app.http.errors import refused


class Draining:
    """Counts the requests under way until there are none."""

    def __init__(self) -> None:
        self._stopping = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request while inside."""
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def check(self) -> None:
        """Raise a 503 when no more requests are taken."""
        if self._stopping:
            message = "this service is stopping; send the request again, to another one"
            raise refused(
                503, "service_unavailable_error", message, retry_after="1", connection="close"
            )

    async def drain(self, seconds: float) -> None:
        """Take no more requests, and return once none is under way or the time is up."""
        self._stopping = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), seconds)
