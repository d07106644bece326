"""vLLM and Infinity on `/rerank` with `documents`; vLLM's `/score` in all its spellings."""

from __future__ import annotations

from functools import partial
from typing import Any, Self

from pydantic import (
    AliasChoices,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    field_validator,
    model_validator,
)

from rerank_core import Candidate, InvalidRequest, QueryDocumentPair, RerankRequest
from serve_app.dialects.dialect import Answer, Dialect, ParsedRequest, common_error, extras
from serve_app.dialects.documents import DocumentsBody, read, results, token_limit
from serve_app.dialects.fields import Body, Texts, Tokens, Whole


def write_rerank(request: ParsedRequest, answer: Answer) -> dict[str, Any]:
    """Write vLLM's answer. No `object`: Infinity's client refuses any but its own."""
    return {
        "id": answer.id,
        "model": answer.model,
        "usage": answer.usage,
        "results": results(request, answer),
        "meta": answer.notes,
    }


class RerankBody(DocumentsBody):
    """vLLM's request. Infinity's client always names a model."""

    @field_validator("model")
    @classmethod
    def _not_specified(cls, model: str | None) -> str | None:
        return None if model == "default/not-specified" else model


# What vLLM calls the two sides of a score request.
LEFT = ("queries", "text_1", "data_1")
RIGHT = ("documents", "items", "text_2", "data_2")


class ScoreBody(Body):
    """A score request: one text against one or many, or two lists of one length, pair by pair."""

    left: Texts = Field(
        validation_alias=AliasChoices(*LEFT),
        description="Also spelled `text_1` or `data_1`.",
    )
    right: Texts = Field(
        validation_alias=AliasChoices(*RIGHT),
        description="Also spelled `items`, `text_2` or `data_2`.",
    )
    model: str | None = Field(None, description="A name from /v1/models; empty: the first.")
    raw_scores: bool | None = Field(None, description="Logits instead of activated scores.")
    use_activation: bool | None = Field(None, description="false: as `raw_scores` true.")
    max_tokens_per_doc: Tokens | None = Field(None, description="Tokens read of a document.")
    max_tokens_per_query: Tokens | None = Field(None, description="Tokens read of the query.")
    truncate_prompt_tokens: Tokens | None = Field(
        None, description="Tokens read of both together; 0 or -1: as many as fit."
    )
    priority: Whole | None = Field(
        None, description="Above 0: the request gives way to others when there is much work."
    )
    instruction: str | None = Field(
        None,
        description="What relevance means: in the model's own place for it, else before the query.",
    )

    # What this caller calls the two, for errors.
    _names: tuple[str, str] = PrivateAttr(("queries", "documents"))

    @model_validator(mode="wrap")
    @classmethod
    def _named(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        body = handler(values)
        left, right = (next(n for n in names if n in values) for names in (LEFT, RIGHT))
        body._names = left, right
        return body


def read_score(body: ScoreBody) -> ParsedRequest:
    """Map the body to a request with a pair for each score."""
    left, right = body.left, body.right
    left_name, right_name = body._names
    if not left or not right:
        name = right_name if left else left_name
        raise InvalidRequest(f"{name} must not be empty", name)
    if any(not query.strip() for query in left):
        raise InvalidRequest("query must not be blank", left_name)
    if len(left) == 1:
        left = left * len(right)
    if len(left) != len(right):
        raise InvalidRequest(
            f"{len(left)} queries for {len(right)} documents; send one query, or one for each",
            left_name,
        )
    candidates = tuple(Candidate(str(i), text) for i, text in enumerate(right))
    limits = token_limit(body.max_tokens_per_query), token_limit(body.max_tokens_per_doc)
    longest = token_limit(body.truncate_prompt_tokens)
    return ParsedRequest(
        request=RerankRequest(left[0], candidates),
        pairs=tuple(
            QueryDocumentPair(query, document, *limits, body.instruction, max_tokens=longest)
            for query, document in zip(left, right, strict=True)
        ),
        field=right_name,
        model=body.model,
        raw_scores=bool(body.raw_scores) or body.use_activation is False,
        skip_errors=body.on_error == "skip",
        can_wait=(body.priority or 0) > 0,
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
