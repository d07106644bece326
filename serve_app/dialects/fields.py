"""The field types of request bodies, and how a request is built from them.

Nulls mean "not given" and unknown fields are let pass, because real clients send both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rerank_core import Candidate, InvalidRequest, RerankRequest
from rerank_core.reranker import pairs_of
from serve_app.dialects.dialect import ParsedRequest


class Body(BaseModel):
    """A request body. Unknown fields are ignored: every real client sends some."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=(), populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        """Drop nulls, so that one in a field's first spelling does not hide the second."""
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None}


def not_bool(value: Any) -> Any:
    """Refuse true and false where a number is meant; pydantic would take them for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _document(value: Any) -> Any:
    if isinstance(value, dict):
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            raise ValueError("a number in it is not finite") from None
        return value
    if not isinstance(value, str):
        raise ValueError("must be a string or an object with a text")
    return value


Count = Annotated[int, BeforeValidator(not_bool), Field(ge=1)]
Tokens = Annotated[int, BeforeValidator(not_bool), Field(ge=-1)]
Number = Annotated[float, BeforeValidator(not_bool), Field(allow_inf_nan=False)]
Document = Annotated[str | dict[str, Any], BeforeValidator(_document)]


def text_of(document: str | Mapping[str, Any], rank_fields: list[str] | None, param: str) -> str:
    """Return what the model reads of a document.

    A string is its own text. Of an object: the named fields, or `text`, or else every field that
    is a string or number, as `name: value` lines.
    """
    if isinstance(document, str):
        return document
    if rank_fields:
        missing = [name for name in rank_fields if name not in document]
        if len(missing) == len(rank_fields):
            raise InvalidRequest("the document has none of the rank_fields", param)
        return "\n".join(str(document[name]) for name in rank_fields if name in document)
    text = document.get("text")
    if isinstance(text, str):
        return text
    if "text" in document:
        raise InvalidRequest("text must be a string", f"{param}.text")
    lines = [f"{k}: {v}" for k, v in document.items() if isinstance(v, str | int | float)]
    if not lines:
        raise InvalidRequest("the document has no text field; name others in rank_fields", param)
    return "\n".join(lines)


def build_request(
    query: str,
    documents: Sequence[str | dict[str, Any]],
    *,
    instruction: str | None = None,
    rank_fields: list[str] | None = None,
    top_k: int | None = None,
    max_tokens_per_query: int | None = None,
    max_tokens_per_doc: int | None = None,
    score_threshold: float | None = None,
    field: str = "documents",
    **options: Any,
) -> ParsedRequest:
    """Build the request for one query. `field` names the documents' field in error messages."""
    if not documents:
        raise InvalidRequest("the list of documents must not be empty", field)
    texts = [text_of(doc, rank_fields, f"{field}.{i}") for i, doc in enumerate(documents)]
    candidates = tuple(
        Candidate(str(doc["id"]) if isinstance(doc, dict) and "id" in doc else str(i), text)
        for i, (doc, text) in enumerate(zip(documents, texts, strict=True))
    )
    request = RerankRequest(
        query,
        candidates,
        top_k,
        max_tokens_per_query,
        max_tokens_per_doc,
        score_threshold,
        instruction,
    )
    return ParsedRequest(
        request=request,
        pairs=tuple(pairs_of(request)),
        documents=tuple(
            {"text": text, **(doc if isinstance(doc, dict) else {})}
            for doc, text in zip(documents, texts, strict=True)
        ),
        field=field,
        **options,
    )
