"""The body that Cohere, Jina, vLLM and Infinity share: a query and `documents`, cut by `top_n`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from serve_app.dialects.dialect import Answer, ParsedRequest, extras
from serve_app.dialects.fields import (
    Body,
    Document,
    Limit,
    Number,
    Query,
    RankFields,
    Tokens,
    Whole,
    build_request,
)


class DocumentsBody(Body):
    """A rerank request. Only `query` and `documents` are needed; null means not given."""

    query: Query = Field(description="Text, or an object with a `text`.")
    documents: list[Document] = Field(
        description="Texts, or objects: their `text`, or the fields named in `rank_fields`."
    )
    model: str | None = Field(None, description="A name from /v1/models; empty: the first.")
    top_n: Limit | None = Field(
        None, description="How many to keep; 0, or more than there are: all."
    )
    rank_fields: RankFields | None = Field(None, description="Fields of object documents to read.")
    return_documents: bool | None = Field(None, description="Hand the documents back.")
    raw_scores: bool | None = Field(None, description="Logits instead of activated scores.")
    use_activation: bool | None = Field(None, description="false: as `raw_scores` true.")
    score_threshold: Number | None = Field(
        None, description="Leave out results whose shown score is below."
    )
    max_tokens_per_doc: Tokens | None = Field(None, description="Tokens read of a document.")
    max_tokens_per_query: Tokens | None = Field(None, description="Tokens read of the query.")
    truncate_prompt_tokens: Tokens | None = Field(
        None, description="Tokens read of query and document together; 0 or -1: as many as fit."
    )
    priority: Whole | None = Field(
        None, description="Above 0: the request gives way to others when there is much work."
    )
    instruction: str | None = Field(
        None,
        description="What relevance means: in the model's own place for it, else before the query.",
    )


def read(body: DocumentsBody, *, documents_by_default: bool) -> ParsedRequest:
    """Map the body to a request."""
    back = body.return_documents
    return build_request(
        body.query,
        body.documents,
        instruction=body.instruction,
        rank_fields=body.rank_fields,
        top_k=body.top_n or None,
        model=body.model,
        raw_scores=bool(body.raw_scores) or body.use_activation is False,
        return_documents=documents_by_default if back is None else back,
        skip_errors=body.on_error == "skip",
        score_threshold=body.score_threshold,
        max_tokens_per_query=token_limit(body.max_tokens_per_query),
        max_tokens_per_doc=token_limit(body.max_tokens_per_doc),
        max_tokens_per_pair=token_limit(body.truncate_prompt_tokens),
        can_wait=(body.priority or 0) > 0,
    )


def results(request: ParsedRequest, answer: Answer) -> list[dict[str, Any]]:
    """Return `results` as all four APIs have them; documents as objects, never as plain strings."""
    return [
        {
            "index": hit.index,
            "relevance_score": hit.score,
            **({"document": request.documents[hit.index]} if request.return_documents else {}),
            **extras(hit),
        }
        for hit in answer.result.ranked
    ]


def token_limit(tokens: int | None) -> int | None:
    """Return the limit, None for vLLM's 0 and -1, which mean no limit."""
    return tokens if tokens is not None and tokens > 0 else None
