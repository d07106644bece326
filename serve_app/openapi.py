"""The OpenAPI document, made from the dialects' own body models, with an example for each."""

from __future__ import annotations

from typing import Any

from serve_app.dialects import ROUTES, Dialect

_TEXTS = ["Bananas are yellow.", "Beijing is the capital of China."]
_QUERY = "What is the capital of China?"
_EXAMPLES: dict[str, dict[str, Any]] = {
    "cohere": {"model": "embedded", "query": _QUERY, "documents": _TEXTS, "top_n": 1},
    "jina": {"query": _QUERY, "documents": [{"text": _TEXTS[1], "id": "b"}, _TEXTS[0]]},
    "voyage": {"query": _QUERY, "documents": _TEXTS, "top_k": 1},
    "vllm": {"query": _QUERY, "documents": _TEXTS},
    "tei": {"query": _QUERY, "texts": _TEXTS, "raw_scores": False},
    "vllm_score": {"queries": _QUERY, "documents": _TEXTS},
    "nvidia": {"query": {"text": _QUERY}, "passages": [{"text": text} for text in _TEXTS]},
}
_STATUSES = {
    200: "the ranking, best first",
    400: "not JSON",
    401: "no key, or a wrong one",
    404: "unknown model",
    408: "the body came too slowly",
    413: "the body is too large",
    415: "not application/json",
    422: "a field breaks a rule; `param` names it",
    429: "too much work is under way; Retry-After says when",
    503: "no model can answer now",
    504: "the deadline passed",
}
_OTHERS = {
    "/": "The playground, a page to try it",
    "/health/live": "The process answers",
    "/health/ready": "Every model is loaded and scores",
    "/info": "The model, its limits and its fingerprint",
    "/v1/models": "The models, in OpenAI's shape",
    "/openapi.json": "This document",
}


def openapi(version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of every route."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {
        path: {"get": {"summary": summary, "responses": {"200": {"description": "fine"}}}}
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


def _schemas(dialect: Dialect) -> dict[str, Any]:
    schema = dialect.body.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs", {}), dialect.body.__name__: schema}


def _operation(dialects: tuple[Dialect, ...]) -> dict[str, Any]:
    names = dict.fromkeys(dialect.body.__name__ for dialect in dialects)
    options = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    examples = {dialect.name: {"value": _EXAMPLES[dialect.name]} for dialect in dialects}
    responses: dict[str, Any] = {
        str(status): {"description": text, "content": {"application/json": {}}}
        for status, text in _STATUSES.items()
    }
    return {
        "summary": " or ".join(dialect.name for dialect in dialects),
        "security": [{}, {"key": []}],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"anyOf": options}, "examples": examples}},
        },
        "responses": responses,
    }
