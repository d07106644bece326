"""What went wrong, as HTTP sees it: the one table from errors to status codes.

RefusedRequest holds what only HTTP knows (a key, a method, a size); everything else is the core's
tree. How a problem looks in a body is each dialect's business.
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


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal, ready to be written. `message` says the fix and never holds the caller's text."""

    status: int
    type: str
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedRequest(RerankError):
    """HTTP itself is at fault: path, method, key, size, encoding."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem


class UnknownModel(InvalidRequest):
    """`model` names nothing that is served here."""


class ReplicaLost(RerankError):
    """The replica died with the unit in its hands. Scoring is pure: it may be sent again."""


_TABLE: tuple[tuple[type[Exception], int, str], ...] = (
    (UnknownModel, 404, "not_found_error"),
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
    return RefusedRequest(Problem(status, kind, message, headers=named))


def problem_of(error: Exception) -> Problem:
    """Return the problem for any exception; one we did not raise ourselves tells nothing."""
    if isinstance(error, RefusedRequest):
        return error.problem
    for kind, status, name in _TABLE:
        if isinstance(error, kind):
            return Problem(
                status, name, str(error), getattr(error, "param", None), _headers(error, status)
            )
    return Problem(500, "internal_error", "internal error; the log has more under this request id")


def _headers(error: Exception, status: int) -> dict[str, str]:
    if status not in (429, 503):
        return {}
    # Whole seconds, at least one: fractions and zero confuse clients.
    seconds = max(1, -(-float(getattr(error, "retry_after_s", 1.0)) // 1))
    return {"retry-after": str(int(seconds))}
