"""vLLM and Infinity: `/rerank` with `documents`."""

from __future__ import annotations

from functools import partial
from typing import Any

from serve_app.dialects.asking import Answer, Ask, Dialect, common_error
from serve_app.dialects.documents import DocumentsBody, read, results


def write_rerank(ask: Ask, answer: Answer) -> dict[str, Any]:
    """Write vLLM's answer. No `object`: Infinity's client refuses any but its own."""
    return {
        "id": answer.id,
        "model": answer.model,
        "usage": answer.usage,
        "results": results(ask, answer),
        "meta": {"truncated": list(answer.truncated)},
    }


VLLM_RERANK = Dialect(
    "vllm", DocumentsBody, partial(read, documents_by_default=True), write_rerank, common_error
)
