"""The OpenAPI document: the dialects' own body models, and their own answers as examples."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from rerank_core import PairScores
from rerank_core.ranking import activate
from rerank_core.reranker import rank_request
from serve_app.config import Limits
from serve_app.dialects import ROUTES, Answer, Dialect
from serve_app.dialects.decoding import slice_fields
from serve_app.http.errors import ErrorReply
from serve_app.http.routes import CHECK_KEY, LISTS, LIVE, METRICS, READY, methods_of

_TEXTS = ["Bananas are yellow.", "Beijing is the capital of China."]
_QUERY = "What is the capital of China?"
_EXAMPLES: dict[str, dict[str, Any]] = {
    "cohere": {"model": "embedded", "query": _QUERY, "documents": _TEXTS, "top_n": 1},
    "jina": {"query": _QUERY, "documents": [{"text": _TEXTS[1], "id": "b"}, _TEXTS[0]]},
    "voyage": {"query": _QUERY, "documents": _TEXTS, "top_k": 1},
    "vllm": {"query": _QUERY, "documents": _TEXTS},
    "tei": {"query": _QUERY, "texts": _TEXTS, "raw_scores": False},
    "mixedbread": {"query": _QUERY, "input": _TEXTS, "top_k": 1},
    "vllm_score": {"queries": _QUERY, "documents": _TEXTS},
    "nvidia": {"query": {"text": _QUERY}, "passages": [{"text": text} for text in _TEXTS]},
}
_STATUSES = {
    400: ("bad_json", "not JSON, or a header that cannot be served"),
    401: ("authentication_error", "no key, or a wrong one"),
    404: ("not_found_error", "unknown model"),
    405: ("invalid_request_error", "use POST"),
    408: ("timeout_error", "the body came too slowly"),
    413: ("invalid_request_error", "the body is too large"),
    415: ("invalid_request_error", "not application/json"),
    422: ("invalid_request_error", "a field breaks a rule; `param` names it"),
    429: ("rate_limit_error", "too much work is under way; Retry-After says when"),
    431: ("invalid_request_error", "the headers are too large"),
    500: ("scoring_failed_error", "no document has a score, or a fault of ours; the log has more"),
    503: ("service_unavailable_error", "no model can answer now"),
    504: ("timeout_error", "the deadline passed"),
}
# Found before the body is read: the path's first dialect answers.
_EARLY = frozenset({401, 405, 408, 413, 415, 431})
_OTHERS = {
    "/": "The playground, a page to try it",
    "/docs": "This document as a page",
    **dict.fromkeys(LIVE, "The process answers"),
    **dict.fromkeys(READY, "Every model is loaded and scores"),
    "/info": "The model, its limits and its fingerprint",
    **dict.fromkeys(METRICS, "What this gateway has counted, as Prometheus reads it"),
    "/openapi.json": "This document",
    CHECK_KEY: "A key that is wrong is a 401 here, too; Cohere's client asks so",
    "/v1/cluster/auth": "Whether keys are asked for, as Xinference's client wants to know",
    "/v1/metadata": "The models, in NVIDIA's shape",
    **dict.fromkeys(LISTS, "The models, in OpenAI's shape"),
    "/v1/models/{name}": "One of them",
    "/version": "The version of this service",
}


def openapi(version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of every route."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {
        path: {
            method.lower(): {"summary": summary, "responses": {"200": {"description": "fine"}}}
            for method in methods_of(path)
        }
        for path, summary in _OTHERS.items()
    }
    for path, dialects in ROUTES.items():
        for dialect in dialects:
            schemas |= _schemas(dialect)
        paths[path] = {"post": _operation(dialects)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "ray-rerank", "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _answer(dialect: Dialect) -> Any:
    """Return what the dialect itself writes for its example."""
    request = dialect.parse(slice_fields(json.dumps(_EXAMPLES[dialect.name]).encode()), Limits())
    raw = np.array([2.5 if "Beijing" in document else -4.0 for _, document in request.pairs])
    scores = PairScores(raw.astype(np.float32), np.array([15, 13], np.int32), np.zeros(2, np.bool_))
    shown = activate(scores.raw, "identity" if request.raw_scores else "sigmoid")
    result = rank_request(request.request, scores, shown)
    return dialect.write(request, Answer("rerank-9f2c", "embedded", 1_790_000_000, result, ()))


def _reply(text: str, values: dict[str, Any]) -> dict[str, Any]:
    examples = {name: {"value": value} for name, value in values.items()}
    return {"description": text, "content": {"application/json": {"examples": examples}}}


def _schemas(dialect: Dialect) -> dict[str, Any]:
    schema = dialect.body.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs", {}), dialect.body.__name__: schema}


def _operation(dialects: tuple[Dialect, ...]) -> dict[str, Any]:
    names = dict.fromkeys(dialect.body.__name__ for dialect in dialects)
    options = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    examples = {dialect.name: {"value": _EXAMPLES[dialect.name]} for dialect in dialects}
    responses = {"200": _reply("the ranking, best first", {d.name: _answer(d) for d in dialects})}
    for status, (kind, text) in _STATUSES.items():
        error = ErrorReply(status, kind, text, "query" if status == 422 else None)
        who = dialects[:1] if status in _EARLY else dialects
        responses[str(status)] = _reply(text, {d.name: d.error(error, "9f2c") for d in who})
    return {
        "summary": " or ".join(dialect.name for dialect in dialects),
        "security": [{}, {"key": []}],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"anyOf": options}, "examples": examples}},
        },
        "responses": responses,
    }
