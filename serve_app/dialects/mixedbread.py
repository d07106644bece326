"""Mixedbread on `/v1/reranking`: told from others by `input`, its name for documents."""

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
from serve_app.dialects.fields import Body, Count, Document, Query, RankFields, build_request


class MixedbreadBody(Body):
    """Mixedbread's request."""

    query: Query
    input: list[Document] = Field(description="Texts, or objects.")
    model: str | None = None
    rank_fields: RankFields | None = Field(None, description="Fields of objects to read.")
    top_k: Count | None = Field(None, description="How many to keep.")
    return_input: bool | None = Field(None, description="Hand the documents back.")


def read(body: MixedbreadBody) -> ParsedRequest:
    """Map the body to a request."""
    return build_request(
        body.query,
        body.input,
        rank_fields=body.rank_fields,
        top_k=body.top_k,
        field="input",
        model=body.model,
        return_documents=bool(body.return_input),
        skip_errors=body.on_error == "skip",
    )


def write(request: ParsedRequest, answer: Answer) -> dict[str, Any]:
    """Write Mixedbread's list, best first; a text that came as a string goes back as one."""
    return {
        "object": "list",
        "data": [
            {
                "index": hit.index,
                "score": hit.score,
                "object": "rank_result",
                **returned_text(request, hit, "input"),
                **extras(hit),
            }
            for hit in answer.result.ranked
        ],
        "model": answer.model,
        "top_k": request.request.top_k or len(request.pairs),
        "return_input": request.return_documents,
        "usage": answer.usage,
    }


MIXEDBREAD = Dialect("mixedbread", MixedbreadBody, read, write, common_error)
