"""What `/info` shows: TEI's own fields, which its clients insist on, plus the fingerprint."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rerank_core import ScorerInfo
from serve_app.config import ServeConfig


def tei_info(info: ScorerInfo, name: str, config: ServeConfig) -> dict[str, Any]:
    """Return the body of `/info` for one model."""
    label = "LABEL_0"
    return {
        "model_id": name,
        "model_sha": info.revision,
        "model_dtype": info.dtype,
        "served_model_name": name,
        "model_type": {"reranker": {"id2label": {"0": label}, "label2id": {label: 0}}},
        "max_concurrent_requests": config.scaling.max_ongoing_units,
        "max_input_length": info.max_length,
        "max_batch_tokens": info.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": config.limits.max_documents,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": _version(),
        "sha": None,
        "docker_label": None,
        "fingerprint": info.fingerprint,
        "backend": info.backend,
        "device": info.device,
        "activation": info.activation,
        "models": list(config.served),
    }


def _version() -> str:
    try:
        return version("ray-rerank")
    except PackageNotFoundError:
        return "unknown"
