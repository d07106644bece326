"""What one request may ask for, checked before any work is sent. Messages never hold texts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rerank_core import InvalidRequest
from rerank_core.reranker import check_request
from serve_app.config import Limits
from serve_app.dialects import Ask
from serve_app.problems import refused

DEADLINE_HEADER = b"x-rerank-timeout-seconds"
# What the dialects call their lists of texts; a list in a field that nobody reads may be long.
_LISTS = frozenset(
    ("documents", "texts", "passages", "items", "queries", "text_1", "text_2", "data_1", "data_2")
)


def check_counts(body: Mapping[str, Any], limits: Limits) -> None:
    """Raise InvalidRequest for too many documents, before anything is made of each of them."""
    for name, value in body.items():
        if name in _LISTS and isinstance(value, list) and len(value) > limits.max_documents:
            raise InvalidRequest(
                f"{len(value)} {name}; at most {limits.max_documents} in one request", name
            )


def check_ask(ask: Ask, limits: Limits) -> None:
    """Raise InvalidRequest for a blank query or too long texts."""
    check_request(ask.request)
    for index, pair in enumerate(ask.pairs):
        if len(pair.question) > limits.max_query_characters:
            raise InvalidRequest(
                f"the query is longer than {limits.max_query_characters} characters", "query"
            )
        if len(pair.document) > limits.max_document_characters:
            raise InvalidRequest(
                f"document {index} is longer than {limits.max_document_characters} characters",
                f"{ask.field}.{index}",
            )


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
