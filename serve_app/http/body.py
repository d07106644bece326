"""Reads a whole body from ASGI under limits, and parses it. It knows nothing of reranking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic_core import from_json

from serve_app.config import Limits
from serve_app.http.asgi import Receive
from serve_app.http.errors import refused
from serve_app.http.headers import too_large


class ClientGone(Exception):
    """The connection closed before the body was whole. There is nobody to answer."""


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
                message = "too many request bodies are under way; try again later"
                raise refused(429, "rate_limit_error", message, retry_after="1", connection="close")

        try:
            yield count_bytes
        finally:
            self.held_bytes -= own


async def read_body(receive: Receive, limits: Limits, count_bytes: Callable[[int], None]) -> bytes:
    """Return the whole body, telling `count_bytes` of each chunk's size.

    Raises a 408 for a slow sender, a 413 for a large body, ClientGone, and what
    `count_bytes` raises.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limits.max_body_bytes:
                    raise too_large(limits)
                count_bytes(len(chunk))
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        message_ = f"the body did not arrive within {limits.body_timeout_s:g} s"
        raise refused(408, "timeout_error", message_, connection="close") from None


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse strict JSON: UTF-8, no NaN, bounded depth and digits; the top must be an object."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError:
        # The parser's own message can quote the text.
        message = "the body is not valid JSON in UTF-8, or is nested too deep"
        raise refused(400, "bad_json", message) from None
    if not isinstance(value, dict):
        raise refused(400, "bad_json", "the body must be a JSON object")
    return value
