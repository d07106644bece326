"""What went wrong, as HTTP sees it: the one table from errors to status codes.

RefusedRequest holds what only HTTP knows (a key, a method, a size); everything else is the core's
tree. How an error looks in a body is each dialect's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rerank_core import (
    DeadlineExceeded,
    InvalidRequest,
    ModelUnavailable,
    Overloaded,
    RerankError,
    ScoringFailed,
)
from serve_app.pool import ReplicaLost


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """A refusal, ready to be written. `message` says the fix and never holds the caller's text."""

    status: int
    type: str
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedRequest(RerankError):
    """HTTP itself is at fault: path, method, key, size, encoding."""

    def __init__(self, reply: ErrorReply) -> None:
        super().__init__(reply)
        self.reply = reply


class UnknownModel(InvalidRequest):
    """`model` names nothing that is served here."""


class UnscorableDocument(InvalidRequest):
    """One document has no score while others have: it is at fault, and no retry will help."""


_TABLE: tuple[tuple[type[Exception], int, str], ...] = (
    (UnknownModel, 404, "not_found_error"),
    (UnscorableDocument, 422, "scoring_failed_error"),
    (InvalidRequest, 422, "invalid_request_error"),
    (Overloaded, 429, "rate_limit_error"),
    (DeadlineExceeded, 504, "timeout_error"),
    (ModelUnavailable, 503, "service_unavailable_error"),
    (ReplicaLost, 503, "service_unavailable_error"),
    (ScoringFailed, 500, "scoring_failed_error"),
)


def refused(status: int, kind: str, message: str, **headers: str) -> RefusedRequest:
    """Return a RefusedRequest; header names are given with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return RefusedRequest(ErrorReply(status, kind, message, headers=named))


def error_reply(error: Exception) -> ErrorReply:
    """Return the reply to any exception; one we did not raise ourselves tells nothing."""
    if isinstance(error, RefusedRequest):
        return error.reply
    for kind, status, name in _TABLE:
        if isinstance(error, kind):
            return ErrorReply(
                status, name, str(error), getattr(error, "param", None), _headers(error, status)
            )
    return ErrorReply(
        500, "internal_error", "internal error; the log has more under this request id"
    )


def origin_of(error: BaseException) -> str:
    """Return where an error comes from, without its message."""
    places, frame = [], error.__traceback__
    while frame:
        places.append(f"{frame.tb_frame.f_code.co_qualname}:{frame.tb_lineno}")
        frame = frame.tb_next
    return f"{type(error).__name__} at {' > '.join(places[-6:])}"


def _headers(error: Exception, status: int) -> dict[str, str]:
    if status not in (429, 503):
        return {}
    # Whole seconds, at least one: fractions and zero confuse clients.
    seconds = max(1, -(-float(getattr(error, "retry_after_s", 1.0)) // 1))
    return {"retry-after": str(int(seconds))}
