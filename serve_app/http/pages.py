"""The answers that need no scoring: playground, OpenAPI, models, liveness, `/info`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rerank_core import ScorerInfo
from serve_app.config import ServeConfig
from serve_app.http.openapi import openapi
from serve_app.http.replies import Reply, json_reply

_PLAYGROUND = Path(__file__).parents[1] / "playground" / "index.html"
# The page loads nothing from anywhere; its one script and style are inside it.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'unsafe-inline'; style-src"
    " 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Pages:
    """Answers by path, made once."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "ray-rerank"}
            for name in config.served
        ]
        self._replies = {
            "/": Reply(200, _PLAYGROUND.read_bytes(), "text/html; charset=utf-8", _PAGE_HEADERS),
            "/health/live": json_reply(200, {"status": "alive"}),
            "/v1/models": json_reply(200, {"object": "list", "data": models}),
            "/openapi.json": json_reply(200, openapi(_version())),
        }

    def get(self, path: str) -> Reply | None:
        """Return the page at `path`, if there is one."""
        return self._replies.get(path)

    def info(self, info: ScorerInfo, name: str) -> dict[str, Any]:
        """Return `/info`: TEI's fields, on which its clients insist, and the fingerprint."""
        label = "LABEL_0"
        return {
            "model_id": name,
            "model_sha": info.revision,
            "model_dtype": info.dtype,
            "served_model_name": name,
            "model_type": {"reranker": {"id2label": {"0": label}, "label2id": {label: 0}}},
            "max_concurrent_requests": self._config.scaling.max_ongoing_units,
            "max_input_length": info.max_length,
            "max_batch_tokens": info.max_batch_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": self._config.limits.max_documents,
            "auto_truncate": True,
            "tokenization_workers": 1,
            "version": _version(),
            "sha": None,
            "docker_label": None,
            "fingerprint": info.fingerprint,
            "backend": info.backend,
            "device": info.device,
            "activation": info.activation,
            "models": list(self._config.served),
            "limits": self._config.limits.model_dump(),
        }


def _version() -> str:
    try:
        return version("ray-rerank")
    except PackageNotFoundError:
        return "unknown"
