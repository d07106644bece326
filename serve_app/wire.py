"""Reads a whole request from ASGI under limits, and writes JSON. It knows nothing of reranking."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from serve_app.config import Limits
from serve_app.problems import RefusedRequest, refused

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class ClientGone(Exception):
    """The connection closed before the body was whole. There is nobody to answer."""


def local_path(scope: Scope) -> str:
    """Return the path below where the application is mounted (`route_prefix`); `` for that itself.

    ASGI servers and Ray's proxies put the mount point into both `root_path` and `path`.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    below = path.removeprefix(root)
    return below if below.startswith("/") or not below else path


def request_id(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the caller's `x-request-id` if it is short and plain."""
    given = headers.get(b"x-request-id", b"")
    return given.decode("ascii") if _REQUEST_ID.fullmatch(given) else None


def read_headers(scope: Scope, limits: Limits) -> dict[bytes, bytes]:
    """Return the headers by lower-case name; the first of equals counts. Refuses too many bytes."""
    size = sum(len(name) + len(value) for name, value in scope["headers"])
    if size > limits.max_header_bytes:
        raise refused(431, "invalid_request_error", "the headers are too large")
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.lower(), value)
    return headers


def check_content(headers: Mapping[bytes, bytes], limits: Limits) -> None:
    """Refuse what need not be read: not JSON, compressed, or declared too large."""
    media, _, rest = headers.get(b"content-type", b"application/json").partition(b";")
    media = media.strip().lower()
    charset = rest.lower().partition(b"charset=")[2].strip(b' "')
    if media != b"application/json" and not media.endswith(b"+json"):
        message = "send the body as content-type: application/json"
        raise refused(415, "invalid_request_error", message)
    if charset not in (b"", b"utf-8", b"utf8"):
        raise refused(415, "invalid_request_error", "the only charset is utf-8")
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise refused(415, "invalid_request_error", "send the body without content-encoding")
    length = headers.get(b"content-length", b"0")
    if not length.isdigit():
        raise refused(400, "invalid_request_error", "content-length is not a number")
    if len(length) > 18 or int(length) > limits.max_body_bytes:
        raise _too_large(limits)


class Bodies:
    """Bounds what all bodies under way take together: 10,000 slow senders could fill the memory."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0

    @contextmanager
    def one(self) -> Iterator[Callable[[int], None]]:
        """Yield a function to call with each chunk's bytes: a 429 when there is no room."""
        own = 0

        def arrived(count: int) -> None:
            nonlocal own
            own += count
            self.held_bytes += count
            if self.held_bytes > self.max_bytes:
                message = "too many request bodies are under way; try again later"
                raise refused(429, "rate_limit_error", message, retry_after="1", connection="close")

        try:
            yield arrived
        finally:
            self.held_bytes -= own


async def read_body(receive: Receive, limits: Limits, arrived: Callable[[int], None]) -> bytes:
    """Return the whole body, telling `arrived` of each chunk's size.

    Raises a 408 for a slow sender, a 413 for a large body, ClientGone, and what `arrived` raises.
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
                    raise _too_large(limits)
                arrived(len(chunk))
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


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole response."""

    status: int
    body: bytes
    media: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Reply:
    """Return `value` as a response of strict JSON."""
    body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return Reply(status, body, headers=headers or {})


async def send_reply(send: Send, reply: Reply, headers: Mapping[str, str]) -> None:
    """Send a response, with more headers."""
    named = {
        "content-type": reply.media,
        "content-length": str(len(reply.body)),
        **reply.headers,
        **headers,
    }
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": raw})
    await send({"type": "http.response.body", "body": reply.body})


def _too_large(limits: Limits) -> RefusedRequest:
    message = f"the body is larger than {limits.max_body_bytes} bytes; send fewer documents"
    return refused(413, "invalid_request_error", message, connection="close")
