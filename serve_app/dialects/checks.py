"""What one request may ask for, checked before any work is sent. Messages never hold texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rerank_core import InvalidRequest, QueryDocumentPair, RerankRequest
from rerank_core.reranker import check_request
from serve_app.config import Limits

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


def check_texts(
    request: RerankRequest, pairs: Sequence[QueryDocumentPair], field: str, limits: Limits
) -> None:
    """Raise InvalidRequest for a blank query or too long texts. `field` has the documents."""
    check_request(request)
    for index, pair in enumerate(pairs):
        if len(pair.question) > limits.max_query_characters:
            raise InvalidRequest(
                f"the query is longer than {limits.max_query_characters} characters", "query"
            )
        if len(pair.document) > limits.max_document_characters:
            raise InvalidRequest(
                f"document {index} is longer than {limits.max_document_characters} characters",
                f"{field}.{index}",
            )
