"""The answers that need no scoring: playground, manual of the API, models, health, metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from rerank_core import ScorerInfo
from serve_app.config import ServeConfig
from serve_app.http.asgi import Scope
from serve_app.http.openapi import openapi
from serve_app.http.replies import Reply, json_reply
from serve_app.http.routes import (
    CHECK_KEY,
    LISTS,
    LIVE,
    METRICS,
    MODELS,
    PAGES,
    READY,
    check_method,
    methods_of,
    model_name,
    unknown_path,
)
from serve_app.pool import LoadedModel

_FOLDER = Path(__file__).parents[1] / "playground"
# The pages load nothing from anywhere; their one script and style are inside them.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'unsafe-inline'; style-src"
    " 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class ModelState(Protocol):
    """What is known of the models that are served."""

    async def check(self) -> None:
        """Return if every model is ready; raise a 503 that names the first that is not."""
        ...

    async def loaded(self, name: str, deadline: float) -> LoadedModel:
        """Return what a model's replicas have loaded."""
        ...


class Pages:
    """Answers by path. `metrics` returns the text that Prometheus reads, `locked` tells whether
    callers need a key; limits are shown as `config` has them now."""

    def __init__(
        self,
        config: ServeConfig,
        state: ModelState,
        metrics: Callable[[], bytes],
        locked: bool = False,
    ) -> None:
        self.config = config
        self._state = state
        self._metrics = metrics
        names = list(config.served)
        models = [_model(config, name) for name in dict.fromkeys((*names, *config.model_names))]
        description = json_reply(200, openapi(_version()))
        # Cohere's client reads `models`, all others `data`.
        listed = json_reply(200, {"object": "list", "data": models, "models": models})
        self._replies = {
            "/": _html("index.html"),
            "/docs": _html("docs.html", description),
            "/version": json_reply(200, {"version": _version()}),
            **dict.fromkeys(LISTS, listed),
            # Xinference's client sends its key only where this says so.
            "/v1/cluster/auth": json_reply(200, {"auth": locked}),
            # Cohere's client; who comes this far has a key, or needs none.
            CHECK_KEY: json_reply(200, {"valid": True}),
            "/openapi.json": description,
            # NVIDIA's description of what is served.
            "/v1/metadata": json_reply(
                200,
                {
                    "version": _version(),
                    "modelInfo": [{"modelUrl": name, "shortName": name} for name in names],
                },
            ),
            **dict.fromkeys(LIVE, json_reply(200, {"status": "alive"})),
        }

    async def answer(self, scope: Scope, path: str) -> Reply:
        """Return the page at `path`. Raises a 404, a 405, and a 503 while a model is not ready."""
        if not path:
            # Without the last slash the playground would look for its neighbours one level up.
            return Reply(307, b"", headers={"location": f"{scope.get('root_path', '')}/"})
        if path not in (*READY, *LIVE, *PAGES) and not path.startswith(f"{MODELS}/"):
            raise unknown_path(path)
        check_method(scope["method"], *methods_of(path))
        if path in READY:
            await self._state.check()
            return json_reply(200, {"status": "ready"})
        if path == "/info":
            return await self._info_page()
        if path in METRICS:
            return Reply(200, self._metrics(), "text/plain; version=0.0.4; charset=utf-8")
        if path.startswith(f"{MODELS}/"):
            # Whatever name is answered by POST has a page: Xinference's client asks for it first.
            return json_reply(200, _model(self.config, path.removeprefix(f"{MODELS}/")))
        return self._replies[path]

    async def _info_page(self) -> Reply:
        deadline = time.monotonic() + self.config.limits.request_timeout_s
        name = next(iter(self.config.served))
        loaded = await self._state.loaded(name, deadline)
        return json_reply(200, self._info(loaded.info, name))

    def _info(self, info: ScorerInfo, name: str) -> dict[str, Any]:
        """Return `/info`: TEI's fields, on which its clients insist, and the fingerprint."""
        label = "LABEL_0"
        return {
            "model_id": name,
            "model_sha": info.revision,
            "model_dtype": info.dtype,
            "served_model_name": name,
            "model_type": {"reranker": {"id2label": {"0": label}, "label2id": {label: 0}}},
            "max_concurrent_requests": self.config.scaling.max_ongoing_units,
            "max_input_length": info.max_length,
            "max_batch_tokens": info.max_batch_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": self.config.limits.max_documents,
            "auto_truncate": True,
            "tokenization_workers": 1,
            "version": _version(),
            "sha": None,
            "docker_label": None,
            "fingerprint": info.fingerprint,
            "backend": info.backend,
            "device": info.device,
            "activation": info.activation,
            "models": list(self.config.served),
            "limits": self.config.limits.model_dump(),
        }


def _html(name: str, description: Reply | None = None) -> Reply:
    """Return a page. The API's description stands in the page, which need not ask for it then."""
    page = (_FOLDER / name).read_bytes()
    if description is not None:
        page = page.replace(b"{{openapi}}", description.body.replace(b"<", b"\\u003c"))
    return Reply(200, page, "text/html; charset=utf-8", _PAGE_HEADERS)


def _model(config: ServeConfig, asked: str) -> dict[str, Any]:
    """Return what is said of a model under the name that was asked for. Raises UnknownModel."""
    return {
        "id": asked,
        "object": "model",
        "created": 0,
        "owned_by": "ray-rerank",
        # vLLM's: which model answers to this name.
        "root": model_name(config, asked),
        # Xinference's client does nothing with a model without it.
        "model_type": "rerank",
        # Cohere's.
        "name": asked,
        "endpoints": ["rerank"],
    }


def _version() -> str:
    try:
        return version("ray-rerank")
    except PackageNotFoundError:
        return "unknown"
