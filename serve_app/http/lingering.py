"""How a connection ends whose client may still be sending, as nginx's `lingering_close` ends it.

A server that closes with bytes unread resets the connection, and the answer is lost on its way. So
the answer goes first, and what still comes is read and dropped, within bounds, before the end.
Where a connection stays open, the server itself drops the rest.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from serve_app.config import Limits
from serve_app.http.asgi import Scope, Send
from serve_app.http.body import ClientGone, IncomingBody
from serve_app.http.replies import Reply

# So many times the largest body is read.
_BODIES = 8
# Then nothing more is waited for: who sends nothing can read.
_IDLE_S = 5.0
# Each takes a request's place and 64 KB at most: a tenth of the places that Serve gives a gateway.
_MOST = 1000
_LENGTHS = (b"content-length", b"transfer-encoding")
# Who asks first sends nothing now; behind an upgrade a parser may find a request, and no body.
_UNREAD = (b"expect", b"upgrade")


class Lingering:
    """Ends what was answered before its body was read, for so many clients at a time."""

    def __init__(self) -> None:
        self._count = 0

    def wanted(self, scope: Scope, body: IncomingBody, reply: Reply) -> bool:
        """Say whether the connection ends with this reply while its client may be sending."""
        if body.ended or self._count >= _MOST:
            return False
        headers = {name.lower(): value.lower() for name, value in scope["headers"]}
        if headers.keys().isdisjoint(_LENGTHS) or not headers.keys().isdisjoint(_UNREAD):
            return False
        closes = b"close" in headers.get(b"connection", b"") or "connection" in reply.headers
        return closes or scope.get("http_version") == "1.0"

    async def end(self, body: IncomingBody, send: Send, limits: Limits) -> None:
        """Read what comes of a body that lingers, and end its answer, which is sent but for that.

        It is no request under way any more: a gateway that stops does not wait for it.
        """
        if not body.lingers:
            return
        self._count += 1
        try:
            await discard(body, limits)
            await send({"type": "http.response.body"})
        finally:
            self._count -= 1


async def discard(body: IncomingBody, limits: Limits) -> None:
    """Read on for `body_timeout_s` and 8 of the largest bodies at most, over pauses of 5 s."""
    left = limits.max_body_bytes * _BODIES
    now = asyncio.get_running_loop().time
    end = now() + limits.body_timeout_s
    with suppress(TimeoutError, ClientGone):
        async with asyncio.timeout_at(min(end, now() + _IDLE_S)) as patience:
            async for chunk in body.chunks():
                left -= len(chunk)
                if left < 0:
                    return
                patience.reschedule(min(end, now() + _IDLE_S))
