"""The field types of request bodies, and how a request is built from them.

Nulls, which mean "not given", and unknown fields are gone before: real clients send both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Raw
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from rerank_core import Candidate, InvalidRequest, RerankRequest
from rerank_core.reranker import pairs_of
from serve_app.dialects.dialect import ParsedRequest
from serve_app.dialects.values import has_more


class _Part(msgspec.Struct):
    type: str = ""
    text: str = ""


_parts = msgspec.json.Decoder(list[_Part])
_MOST_PARTS = 1000


class Body(BaseModel):
    """A request body. Unknown fields are named in the answer: every real client sends some."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=(), populate_by_name=True)

    on_error: Literal["fail", "skip"] | None = Field(
        None, description="skip: leave out what cannot be scored, instead of refusing all."
    )


def not_bool(value: Any) -> Any:
    """Refuse true and false where a number is meant; pydantic would take them for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def text_of_parts(parts: Raw | bytes) -> str:
    """Return the text of typed content parts, as chat APIs have them, a line each."""
    try:
        if has_more(parts, _MOST_PARTS):
            raise ValueError(f"more than {_MOST_PARTS} content parts; send them as one")
        found = _parts.decode(parts)
    except msgspec.MsgspecError:
        raise ValueError("its content must be a text, or parts of type text") from None
    if not found or any(part.type != "text" for part in found):
        raise ValueError("only content parts of type text can be read")
    return "\n".join(part.text for part in found)


def _query(value: Any) -> Any:
    """Take a text, an object with a text or content parts, or a list of just one of these."""
    if isinstance(value, list) and len(value) == 1 and not _is_part(value[0]):
        value = value[0]
    if isinstance(value, dict):
        value = value.get("text", value.get("content"))
    if isinstance(value, list) and value and _is_part(value[0]):
        value = text_of_parts(msgspec.json.encode(value))
    if not isinstance(value, str):
        raise ValueError("must be a text, or an object with a text")
    return value


def _is_part(value: Any) -> bool:
    return isinstance(value, dict) and "type" in value


def _texts(value: Any) -> Any:
    """Take one text, or many; each may be an object with a text or content parts."""
    entries = value if isinstance(value, list) else [value]
    return [_query(_parsed(entry)) if isinstance(entry, dict) else entry for entry in entries]


def _parsed(document: dict[str, Any]) -> dict[str, Any]:
    content = document.get("content")
    if isinstance(content, Raw):
        return {**document, "content": text_of_parts(content)}
    return document


def _once(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _document(value: Any) -> Any:
    if not isinstance(value, str | dict):
        raise ValueError("must be a string or an object with a text")
    return value


Count = Annotated[int, BeforeValidator(not_bool), Field(ge=1)]
Limit = Annotated[int, BeforeValidator(not_bool), Field(ge=0)]
Whole = Annotated[int, BeforeValidator(not_bool)]
Tokens = Annotated[int, BeforeValidator(not_bool), Field(ge=-1)]
Number = Annotated[float, BeforeValidator(not_bool), Field(allow_inf_nan=False)]
Query = Annotated[str, BeforeValidator(_query, json_schema_input_type=str | dict[str, Any])]
Texts = Annotated[
    list[str], BeforeValidator(_texts, json_schema_input_type=str | list[str | dict[str, Any]])
]
# Of each document so many are looked for; a name twice would multiply its text.
RankFields = Annotated[list[str], Field(max_length=100), AfterValidator(_once)]
Document = Annotated[Any, BeforeValidator(_document, json_schema_input_type=str | dict[str, Any])]


def text_of(document: str | Mapping[str, Any], rank_fields: list[str] | None, param: str) -> str:
    """Return what the model reads of a document.

    A string is its own text. Of an object: the named fields, or `text`, or the parts of `content`,
    or else every field that is a string or number, as `name: value` lines.
    """
    if isinstance(document, str):
        return document
    if rank_fields:
        missing = [name for name in rank_fields if name not in document]
        if len(missing) == len(rank_fields):
            raise InvalidRequest("the document has none of the rank_fields", param)
        return "\n".join(_shown(document[name]) for name in rank_fields if name in document)
    text, content = document.get("text"), document.get("content")
    if isinstance(text, str):
        return text
    if "text" in document:
        raise InvalidRequest("text must be a string", f"{param}.text")
    if isinstance(content, Raw | list):
        parts = content if isinstance(content, Raw) else msgspec.json.encode(content)
        try:
            return text_of_parts(parts)
        except ValueError as error:
            raise InvalidRequest(str(error), param) from None
    lines = [f"{k}: {v}" for k, v in document.items() if isinstance(v, str | int | float)]
    if not lines:
        raise InvalidRequest("the document has no text field; name others in rank_fields", param)
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return bytes(value).decode() if isinstance(value, Raw) else str(value)


def build_request(
    query: str,
    documents: Sequence[str | dict[str, Any]],
    *,
    instruction: str | None = None,
    rank_fields: list[str] | None = None,
    top_k: int | None = None,
    max_tokens_per_query: int | None = None,
    max_tokens_per_doc: int | None = None,
    max_tokens_per_pair: int | None = None,
    score_threshold: float | None = None,
    field: str = "documents",
    return_documents: bool = False,
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
        max_tokens_per_pair,
    )
    return ParsedRequest(
        request=request,
        pairs=tuple(pairs_of(request)),
        documents=tuple(
            {"text": text, **(doc if isinstance(doc, dict) else {})}
            for doc, text in zip(documents, texts, strict=True)
        )
        if return_documents
        else (),
        field=field,
        return_documents=return_documents,
        **options,
    )
