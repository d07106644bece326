"""NVIDIA's retrieval microservice: `/v1/ranking` with `passages`, answered by logits."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from serve_app.dialects.dialect import Answer, Dialect, ParsedRequest, common_error, extras
from serve_app.dialects.fields import Body, build_request


class Text(BaseModel):
    """A text in an object of its own."""

    text: str


class NvidiaBody(Body):
    """NVIDIA's request."""

    query: Text
    passages: list[Text]
    model: str | None = None
    truncate: Literal["NONE", "END"] | None = Field(
        None, description="NONE: refuse pairs that are too long."
    )


def read(body: NvidiaBody) -> ParsedRequest:
    """Map the body to a request; `logit` is a raw score by name."""
    return build_request(
        body.query.text,
        [passage.text for passage in body.passages],
        field="passages",
        model=body.model,
        raw_scores=True,
        skip_errors=body.on_error == "skip",
        refuse_truncation=body.truncate == "NONE",
    )


def write(request: ParsedRequest, answer: Answer) -> dict[str, Any]:
    """Write the rankings, best first."""
    return {
        "rankings": [
            {"index": hit.index, "logit": hit.score, **extras(hit)} for hit in answer.result.ranked
        ],
        "usage": answer.usage,
    }


NVIDIA = Dialect("nvidia", NvidiaBody, read, write, common_error)
