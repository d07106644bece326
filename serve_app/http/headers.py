"""What the headers of a request say, checked before its body is read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from serve_app.config import Limits
from serve_app.http.asgi import Scope
from serve_app.http.errors import RefusedRequest, refused

DEADLINE_HEADER = b"x-rerank-timeout-seconds"
PRIORITY_HEADER = b"x-rerank-priority"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


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


def check_upgrade(method: str, headers: Mapping[bytes, bytes]) -> None:
    """Refuse a body behind an `upgrade` header, before any of it is read.

    uvicorn's fast parser takes what follows such a header for another protocol, loses the body, and
    could read it as the next request on the connection, which therefore ends here.
    """
    if b"upgrade" in headers and method not in ("GET", "HEAD"):
        message = "send the request over HTTP/1.1 without an upgrade header"
        raise refused(400, "upgrade_not_supported", message, connection="close")


def check_content(headers: Mapping[bytes, bytes], limits: Limits) -> bool:
    """Return whether the body is compressed by gzip.

    Refuses what need not be read: not JSON, compressed in another way, or declared too large.
    """
    media, _, rest = (headers.get(b"content-type") or b"application/json").partition(b";")
    media = media.strip().lower()
    charset = rest.lower().partition(b"charset=")[2].strip(b' "')
    if media != b"application/json" and not media.endswith(b"+json"):
        message = "send the body as content-type: application/json"
        raise refused(415, "invalid_request_error", message)
    if charset not in (b"", b"utf-8", b"utf8"):
        raise refused(415, "invalid_request_error", "the only charset is utf-8")
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in (b"identity", b"gzip"):
        raise refused(415, "invalid_request_error", "the only content-encoding is gzip")
    length = headers.get(b"content-length", b"0")
    if not length.isdigit():
        raise refused(400, "invalid_request_error", "content-length is not a number")
    if len(length) > 18 or int(length) > limits.max_body_bytes:
        raise too_large(limits)
    return encoding == b"gzip"


def deadline_of(headers: Mapping[bytes, bytes], started: float, limits: Limits) -> float:
    """Return the request's deadline on the monotonic clock; a header can only shorten it."""
    given = headers.get(DEADLINE_HEADER)
    if given is None:
        return started + limits.request_timeout_s
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not (seconds > 0 and math.isfinite(seconds)):
        name = DEADLINE_HEADER.decode()
        raise refused(400, "invalid_request_error", f"{name} must be a number above 0")
    return started + min(seconds, limits.request_timeout_s)


def says_batch(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the request gives way to others. Refuses a word that is no class."""
    given = headers.get(PRIORITY_HEADER, b"interactive").strip().lower()
    if given not in (b"interactive", b"batch"):
        name = PRIORITY_HEADER.decode()
        raise refused(400, "invalid_request_error", f"{name} is interactive or batch")
    return given == b"batch"


def too_large(limits: Limits) -> RefusedRequest:
    """Return the refusal of a body that is larger than the limit."""
    message = (
        f"the body is larger than {limits.max_body_bytes} bytes; send fewer documents, or raise"
        " limits.max_body_bytes"
    )
    return refused(413, "invalid_request_error", message, connection="close")
