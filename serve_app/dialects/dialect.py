"""What every dialect shares: its way in, its way out, and what passes between them.

It does not know any one API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from sys import getsizeof
from typing import Any

from msgspec import Raw
from pydantic import BaseModel, ValidationError

from rerank_core import (
    InvalidRequest,
    QueryDocumentPair,
    RankedCandidate,
    RerankRequest,
    RerankResult,
)
from rerank_core.reranker import check_request
from serve_app.config import Limits
from serve_app.dialects.values import check_count, decode_fields
from serve_app.http.errors import ErrorReply

# Of fields that are not acted on so many are named, and so much of each name.
_MOST_NAMES = 20
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request in our own words.

    `pairs` is what gets scored, one per candidate of `request`. `documents` is what is handed back,
    empty where nothing is: the text, with the fields of an object around it. `field` is what the
    API calls the list of them. `cut` has the indices of documents that were shortened before
    scoring; with `skip_errors` what cannot be scored is left out. `can_wait` gives way to others
    where there is too much work. `ignored` names fields of the body that change nothing.
    """

    request: RerankRequest
    pairs: tuple[QueryDocumentPair, ...]
    documents: tuple[Mapping[str, Any], ...] = ()
    field: str = "documents"
    model: str | None = None
    raw_scores: bool = False
    return_documents: bool = False
    refuse_truncation: bool = False
    skip_errors: bool = False
    cut: frozenset[int] = frozenset()
    can_wait: bool = False
    ignored: tuple[str, ...] = ()

    @property
    def text_bytes(self) -> int:
        """The memory of the texts: up to four bytes a character, where a body may have one."""
        return sum(getsizeof(pair.document) for pair in self.pairs) + getsizeof(self.request.query)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a dialect writes from: the ranking, best first, and who answered.

    Each candidate's `score` is the one to show: activated, or raw where the request wants that.
    """

    id: str
    model: str
    created: int
    result: RerankResult
    truncated: tuple[int, ...]
    failed: tuple[int, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def notes(self) -> dict[str, Any]:
        """What an answer's `meta` says of documents, by their indices, and of unknown fields."""
        notes: dict[str, Any] = {"truncated": list(self.truncated)}
        if self.failed:
            notes["failed"] = list(self.failed)
        if self.ignored:
            notes["warnings"] = [f"{name} is not acted on" for name in self.ignored]
        return notes

    @property
    def usage(self) -> dict[str, int]:
        """Real tokens, as every API with a usage object has them."""
        return {"prompt_tokens": self.result.tokens, "total_tokens": self.result.tokens}


@dataclass(frozen=True)
class Dialect:
    """One API: its body, and the way in and out."""

    name: str
    body: type[BaseModel]
    read: Callable[[Any], ParsedRequest]
    write: Callable[[ParsedRequest, Answer], Any]
    error: Callable[[ErrorReply, str], Any]

    @cached_property
    def reads(self) -> frozenset[str]:
        """The fields that this API has, as bodies spell them."""
        names: set[str] = set()
        for name, field in self.body.model_fields.items():
            alias = field.validation_alias
            names |= {name} if alias is None else set(alias.choices)  # type: ignore[union-attr,arg-type]
        return frozenset(names)

    def parse(
        self, fields: Mapping[str, Raw], limits: Limits, *, can_wait: bool = False
    ) -> ParsedRequest:
        """Return the request in a body's fields. Raises InvalidRequest, which never quotes them.

        Documents beyond `max_document_characters` are cut. It gives way to others where its body
        says so, or `can_wait`.
        """
        read = {name: raw for name, raw in fields.items() if name in self.reads}
        values = decode_fields(read, limits.max_documents)
        try:
            request = self.read(self.body.model_validate(values))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            # A location holds names and indices; only a key of an object could be caller's text.
            param = ".".join(str(part) for part in first["loc"][:2])[:80]
            message = first["msg"].removeprefix("Value error, ")
            raise InvalidRequest(f"{param}: {message}", param) from None
        unread = [name[:_LONGEST_NAME] for name in fields if name not in self.reads]
        ignored = (*request.ignored, *unread)[:_MOST_NAMES]
        request = replace(request, ignored=ignored, can_wait=request.can_wait or can_wait)
        check_request(request.request)
        return within(request, limits)


def within(request: ParsedRequest, limits: Limits) -> ParsedRequest:
    """Cut documents to their limit. Raises InvalidRequest for what is beyond another limit."""
    check_count(len(request.pairs) > limits.max_documents, request.field, limits.max_documents)
    for pair in request.pairs:
        if len(pair.question) > limits.max_query_characters:
            raise InvalidRequest(
                f"the query is longer than {limits.max_query_characters} characters", "query"
            )
    return _shortened(request, limits.max_document_characters)


def _shortened(request: ParsedRequest, most: int) -> ParsedRequest:
    cut = {i for i, pair in enumerate(request.pairs) if len(pair.document) > most}
    if not cut:
        return request
    pairs = tuple(
        replace(pair, document=pair.document[:most]) if i in cut else pair
        for i, pair in enumerate(request.pairs)
    )
    return replace(request, pairs=pairs, cut=request.cut | cut)


def returned_text(request: ParsedRequest, hit: RankedCandidate, name: str) -> dict[str, str]:
    """Return a document's text under the API's name for it, where the caller wants it back."""
    return {name: request.documents[hit.index]["text"]} if request.return_documents else {}


def extras(hit: RankedCandidate) -> dict[str, Any]:
    """Return what no API has a field for, only where the model's config asks for it.

    `passage` has the first and one past the last character of a split document's best passage.
    """
    more: dict[str, Any] = {}
    if hit.passage is not None:
        more["passage"] = list(hit.passage)
    if hit.calibrated_score is not None:
        more["calibrated_score"] = hit.calibrated_score
    return more


def common_error(error: ErrorReply, request_id: str) -> dict[str, Any]:
    """Return one error body that Cohere, Jina, OpenAI and FastAPI clients can all read."""
    detail: Any = error.message
    if error.status == 422:
        # Clients generated from FastAPI parse the detail of a 422 as a list of objects.
        loc = ["body", *(error.param or "").split(".")]
        detail = [{"loc": loc, "msg": error.message, "type": error.type}]
    return {
        "message": error.message,
        "detail": detail,
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.status,
        },
        "request_id": request_id,
    }
