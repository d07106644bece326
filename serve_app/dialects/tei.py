"""Hugging Face text-embeddings-inference: `/rerank` with `texts`, answered by a bare list."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from serve_app.dialects.dialect import Answer, Dialect, ParsedRequest, extras, returned_text
from serve_app.dialects.fields import Body, Query, build_request
from serve_app.http.errors import ErrorReply, refused

_ERROR_TYPES = {
    400: "Empty",
    413: "Validation",
    422: "Validation",
    429: "Overloaded",
    503: "Unhealthy",
}


class TeiBody(Body):
    """TEI's request. Its `model` and `top_n` are not read: TEI has neither."""

    query: Query
    texts: list[str]
    raw_scores: bool | None = Field(None, description="Logits instead of activated scores.")
    return_text: bool | None = Field(None, description="Hand the texts back.")
    truncate: bool | None = Field(None, description="false: refuse pairs that are too long.")
    truncation_direction: Literal["right", "left"] | None = None

    @field_validator("truncation_direction", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value


def read(body: TeiBody) -> ParsedRequest:
    """Map the body to a request. An empty list is a 400 here, by TEI's own rule."""
    if not body.texts:
        raise refused(400, "invalid_request_error", "the list of texts must not be empty")
    return build_request(
        body.query,
        body.texts,
        field="texts",
        raw_scores=bool(body.raw_scores),
        return_documents=bool(body.return_text),
        skip_errors=body.on_error == "skip",
        # Documents are cut at their end.
        ignored=("truncation_direction",) if body.truncation_direction == "left" else (),
        refuse_truncation=body.truncate is False,
    )


def write(request: ParsedRequest, answer: Answer) -> list[dict[str, Any]]:
    """Write the bare list, best first."""
    return [
        {
            "index": hit.index,
            "score": hit.score,
            **returned_text(request, hit, "text"),
            **extras(hit),
        }
        for hit in answer.result.ranked
    ]


def error(error: ErrorReply, request_id: str) -> dict[str, Any]:
    """Write TEI's error body."""
    return {"error": error.message, "error_type": _ERROR_TYPES.get(error.status, "Backend")}


TEI = Dialect("tei", TeiBody, read, write, error)
