"""Voyage on `/v1/rerank`: told from Cohere and Jina by `top_k` or `truncation` in the body."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from serve_app.dialects.dialect import (
    Answer,
    Dialect,
    ParsedRequest,
    common_error,
    extras,
    returned_text,
)
from serve_app.dialects.fields import Body, Count, Query, build_request


class VoyageBody(Body):
    """Voyage's request."""

    query: Query
    documents: list[str]
    model: str | None = None
    top_k: Count | None = Field(None, description="How many to keep.")
    return_documents: bool | None = Field(None, description="Hand the documents back.")
    truncation: bool | None = Field(None, description="false: refuse pairs that are too long.")


def read(body: VoyageBody) -> ParsedRequest:
    """Map the body to a request."""
    return build_request(
        body.query,
        body.documents,
        top_k=body.top_k,
        model=body.model,
        return_documents=bool(body.return_documents),
        skip_errors=body.on_error == "skip",
        refuse_truncation=body.truncation is False,
    )


def write(request: ParsedRequest, answer: Answer) -> dict[str, Any]:
    """Write Voyage's list; its documents are plain strings."""
    return {
        "object": "list",
        "data": [
            {
                "index": hit.index,
                "relevance_score": hit.score,
                **returned_text(request, hit, "document"),
                **extras(hit),
            }
            for hit in answer.result.ranked
        ],
        "model": answer.model,
        "usage": {"total_tokens": answer.result.tokens},
    }


VOYAGE = Dialect("voyage", VoyageBody, read, write, common_error)
