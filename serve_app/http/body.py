"""Reads a whole body from ASGI under limits, and nothing more. It knows nothing of reranking."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from serve_app.config import Limits
from serve_app.http.asgi import Receive
from serve_app.http.errors import refused
from serve_app.http.headers import too_large

# zlib's number for "with the header of gzip".
_GZIP = 31


class ClientGone(Exception):
    """The connection closed before the body was whole. There is nobody to answer."""


class IncomingBody:
    """The chunks of a body as they come in; `ended` once the last one is there.

    It `lingers` where the rest of it is to be read when the request has been answered.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False
        self.lingers = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what has not been read yet. Raises ClientGone."""
        while not self.ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            self.ended = not message.get("more_body", False)
            yield message.get("body", b"")


class BodyBudget:
    """Bounds what all bodies under way take together: 10,000 slow senders could fill the memory."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0

    @contextmanager
    def hold(self) -> Iterator[Callable[[int], None]]:
        """Yield a function to call with each chunk's bytes: a 429 when there is no room."""
        own = 0

        def count_bytes(count: int) -> None:
            nonlocal own
            own += count
            self.held_bytes += count
            if self.held_bytes > self.max_bytes:
                message = (
                    "more bodies are under way than limits.max_held_bytes allows; try again later"
                )
                raise refused(429, "rate_limit_error", message, retry_after="1", connection="close")

        try:
            yield count_bytes
        finally:
            self.held_bytes -= own


async def read_body(
    body: IncomingBody, limits: Limits, count_bytes: Callable[[int], None], *, gzipped: bool = False
) -> bytes:
    """Return the whole body, inflated, telling `count_bytes` of each chunk's size.

    Raises a 408 for a slow sender, a 413 for a large body, a 400 for broken gzip, ClientGone, and
    what `count_bytes` raises.
    """
    inflater = zlib.decompressobj(_GZIP) if gzipped else None
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            async for chunk in body.chunks():
                if inflater is not None:
                    # One byte more than there may be tells that there is more.
                    chunk = inflater.decompress(chunk, limits.max_body_bytes - size + 1)
                size += len(chunk)
                if size > limits.max_body_bytes:
                    raise too_large(limits)
                count_bytes(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        message_ = f"the body did not arrive within {limits.body_timeout_s:g} s"
        raise refused(408, "timeout_error", message_, connection="close") from None
    except zlib.error:
        raise refused(400, "bad_json", "the body is no valid gzip") from None
    if inflater is not None and not inflater.eof:
        raise refused(400, "bad_json", "the gzip of the body is cut off")
    return b"".join(chunks)
