"""Cohere, v2 and v1: `/v2/rerank` and, with Jina's fields in the same answer, `/v1/rerank`."""

from __future__ import annotations

from functools import partial
from typing import Any

from serve_app.dialects.dialect import Answer, Dialect, ParsedRequest, common_error
from serve_app.dialects.documents import DocumentsBody, read, results

_DOCUMENTS_PER_SEARCH_UNIT = 100


def write(request: ParsedRequest, answer: Answer, *, version: str) -> dict[str, Any]:
    """Write Cohere's answer; `model` and `usage` are for the clients that need them too."""
    units = -(-len(request.pairs) // _DOCUMENTS_PER_SEARCH_UNIT)
    return {
        "id": answer.id,
        "model": answer.model,
        "results": results(request, answer),
        "meta": {
            "api_version": {"version": version, "is_experimental": False},
            "billed_units": {"search_units": units},
            "tokens": {"input_tokens": answer.result.tokens, "output_tokens": 0},
            **answer.notes,
        },
        "usage": answer.usage,
    }


COHERE_V2 = Dialect(
    "cohere",
    DocumentsBody,
    partial(read, documents_by_default=False),
    partial(write, version="2"),
    common_error,
)
