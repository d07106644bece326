"""One small module for each API. This table says which of them answers on which path."""

from __future__ import annotations

from typing import Any

from serve_app.dialects.cohere import COHERE_V2
from serve_app.dialects.dialect import Answer, Dialect, ParsedRequest, common_error
from serve_app.dialects.fields import Body
from serve_app.dialects.jina import JINA
from serve_app.dialects.nvidia import NVIDIA
from serve_app.dialects.tei import TEI
from serve_app.dialects.vllm import VLLM_RERANK, VLLM_SCORE
from serve_app.dialects.voyage import VOYAGE

__all__ = ["ROUTES", "Answer", "Body", "Dialect", "ParsedRequest", "choose", "common_error"]

# The first dialect of a path also writes the errors for bodies that cannot be told apart.
ROUTES: dict[str, tuple[Dialect, ...]] = {
    "/v2/rerank": (COHERE_V2,),
    "/v1/rerank": (JINA, VOYAGE),
    "/rerank": (VLLM_RERANK, TEI),
    "/score": (VLLM_SCORE,),
    "/v1/score": (VLLM_SCORE,),
    "/v1/ranking": (NVIDIA,),
}


def choose(path: str, body: dict[str, Any]) -> Dialect:
    """Return the dialect of a body: `texts` is TEI's, `top_k` and `truncation` are Voyage's."""
    dialects = ROUTES[path]
    given = {name for name, value in body.items() if value is not None}
    if TEI in dialects and "texts" in given and "documents" not in given:
        return TEI
    if VOYAGE in dialects and given & {"top_k", "truncation"}:
        return VOYAGE
    return dialects[0]
