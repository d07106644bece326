"""vLLM and Infinity on `/rerank` with `documents`; vLLM's `/score` in all its spellings."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field, field_validator

from rerank_core import Candidate, InvalidRequest, QueryDocumentPair, RerankRequest
from serve_app.dialects.dialect import Answer, Dialect, ParsedRequest, common_error, extras
from serve_app.dialects.documents import DocumentsBody, read, results, token_limit
from serve_app.dialects.fields import Body, Tokens, not_bool


def write_rerank(request: ParsedRequest, answer: Answer) -> dict[str, Any]:
    """Write vLLM's answer. No `object`: Infinity's client refuses any but its own."""
    return {
        "id": answer.id,
        "model": answer.model,
        "usage": answer.usage,
        "results": results(request, answer),
        "meta": {"truncated": list(answer.truncated)},
    }


class RerankBody(DocumentsBody):
    """vLLM's request: a `top_n` of 0 means all. Infinity's client always names a model."""

    top_n: Annotated[int, BeforeValidator(not_bool), Field(ge=0)] | None = Field(
        None, description="How many to keep; 0, or more than there are: all."
    )

    @field_validator("model")
    @classmethod
    def _not_specified(cls, model: str | None) -> str | None:
        return None if model == "default/not-specified" else model


class ScoreBody(Body):
    """A score request: one text against one or many, or two lists of one length, pair by pair."""

    left: str | list[str] = Field(
        validation_alias=AliasChoices("queries", "text_1", "data_1"),
        description="Also spelled `text_1` or `data_1`.",
    )
    right: str | list[str] = Field(
        validation_alias=AliasChoices("documents", "items", "text_2", "data_2"),
        description="Also spelled `items`, `text_2` or `data_2`.",
    )
    model: str | None = Field(None, description="A name from /v1/models; empty: the first.")
    raw_scores: bool | None = Field(None, description="Logits instead of activated scores.")
    use_activation: bool | None = Field(None, description="false: as `raw_scores` true.")
    max_tokens_per_doc: Tokens | None = Field(None, description="Tokens read of a document.")
    max_tokens_per_query: Tokens | None = Field(None, description="Tokens read of the query.")
    instruction: str | None = Field(
        None,
        description="What relevance means: in the model's own place for it, else before the query.",
    )


def read_score(body: ScoreBody) -> ParsedRequest:
    """Map the body to a request with a pair for each score."""
    left = [body.left] if isinstance(body.left, str) else body.left
    right = [body.right] if isinstance(body.right, str) else body.right
    if not left or not right:
        raise InvalidRequest("queries and documents must not be empty", "documents")
    if any(not query.strip() for query in left):
        raise InvalidRequest("query must not be blank", "queries")
    if len(left) == 1:
        left = left * len(right)
    if len(left) != len(right):
        raise InvalidRequest(
            f"{len(left)} queries for {len(right)} documents; send one query, or one for each",
            "queries",
        )
    candidates = tuple(Candidate(str(i), text) for i, text in enumerate(right))
    limits = token_limit(body.max_tokens_per_query), token_limit(body.max_tokens_per_doc)
    return ParsedRequest(
        request=RerankRequest(left[0], candidates),
        pairs=tuple(
            QueryDocumentPair(query, document, *limits, body.instruction)
            for query, document in zip(left, right, strict=True)
        ),
        model=body.model,
        raw_scores=bool(body.raw_scores) or body.use_activation is False,
    )


def write_score(request: ParsedRequest, answer: Answer) -> dict[str, Any]:
    """Write the scores in input order, as an OpenAI list."""
    by_index = sorted(answer.result.ranked, key=lambda hit: hit.index)
    return {
        "id": answer.id.replace("rerank-", "score-", 1),
        "object": "list",
        "created": answer.created,
        "model": answer.model,
        "data": [
            {
                "index": hit.index,
                "object": "score",
                "score": hit.score,
                **extras(hit),
            }
            for hit in by_index
        ],
        "usage": answer.usage,
    }


VLLM_RERANK = Dialect(
    "vllm", RerankBody, partial(read, documents_by_default=True), write_rerank, common_error
)
VLLM_SCORE = Dialect("vllm_score", ScoreBody, read_score, write_score, common_error)
