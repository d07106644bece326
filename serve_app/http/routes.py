"""Which path leads where, and by which method."""

from __future__ import annotations

import re
from difflib import get_close_matches

from serve_app.config import ServeConfig
from serve_app.dialects import ROUTES, Dialect
from serve_app.http.asgi import Scope
from serve_app.http.errors import RefusedRequest, UnknownModel, refused

LIVE = ("/health/live", "/v1/health/live")
# As TEI, vLLM, SageMaker, Kubernetes, NVIDIA, llama.cpp and Xinference spell it.
READY = ("/health/ready", "/health", "/healthz", "/ping", "/v1/health/ready", "/v1/health",
         "/status")  # fmt: skip
# As all others and as NVIDIA spell it.
METRICS = ("/metrics", "/v1/metrics")
MODELS = "/v1/models"
# As OpenAI and as Infinity spell it.
LISTS = (MODELS, "/models")
CHECK_KEY = "/v1/check-api-key"
PAGES = ("/", "/docs", "/info", *METRICS, "/openapi.json", CHECK_KEY, "/v1/cluster/auth",
         "/v1/metadata", *LISTS, "/version")  # fmt: skip
# How pages are asked for that some or all clients post to: vLLM's probe, Cohere's client.
_METHODS = {"/ping": ("GET", "POST"), CHECK_KEY: ("POST",)}
# What probes and scrapes ask for without a key, as on the servers that they come from.
OPEN_PATHS = frozenset((*LIVE, *READY, *METRICS, "/version", "/v1/cluster/auth"))
# How a path ends that says what is asked there, whatever other applications the server has.
_RERANKS = tuple(path for path in ROUTES if path.rsplit("/", 1)[-1] in ("rerank", "reranking"))
# A longer path is none of ours.
_LONGEST = 80


def plain(path: str) -> str:
    """Return a path without doubled slashes and without one at its end, except for `/` itself."""
    single = re.sub("/{2,}", "/", path)
    return single if single == "/" else single.removesuffix("/")


def reranks(scope: Scope) -> bool:
    """Say whether a request can only be a rerank request, wherever the application is mounted."""
    posted = scope["type"] == "http" and scope["method"] == "POST"
    return posted and plain(scope["path"]).endswith(_RERANKS)


def dialects_at(method: str, path: str) -> tuple[Dialect, ...]:
    """Return the APIs that answer on a path, none where nothing is scored. Raises a 405."""
    dialects = ROUTES.get(path, ())
    if dialects:
        check_method(method, "POST")
    elif path == "/" and method == "POST":
        message = f"nothing is scored here; post to one of {', '.join(ROUTES)}"
        raise refused(405, "invalid_request_error", message, allow="GET")
    return dialects


def methods_of(page: str) -> tuple[str, ...]:
    """Return the methods by which a page is asked for."""
    return _METHODS.get(page, ("GET",))


def check_method(method: str, *allowed: str) -> None:
    """Raise a 405 that names what is allowed."""
    # Load balancers ask by HEAD; servers leave the body out.
    if ("GET" if method == "HEAD" else method) not in allowed:
        message = f"use {' or '.join(allowed)} here"
        raise refused(405, "invalid_request_error", message, allow=", ".join(allowed))


def unknown_path(path: str) -> RefusedRequest:
    """Return the 404 of a path that leads nowhere, with the nearest that leads somewhere."""
    served = (*ROUTES, *LIVE, *READY, *PAGES)
    (nearest,) = get_close_matches(path[:_LONGEST].lower(), served, n=1, cutoff=0.0)
    message = f"no such path; the nearest is {nearest}, and /openapi.json lists all"
    return refused(404, "not_found_error", message)


def model_name(config: ServeConfig, asked: str | None) -> str:
    """Return the public name of the model that answers for `asked`. Raises UnknownModel."""
    name = config.model_for(asked)
    if name is None:
        raise UnknownModel(
            "no such model here; /v1/models lists the names. To take this one, add it to"
            " model_names, or set unknown_models: default",
            "model",
        )
    return name
