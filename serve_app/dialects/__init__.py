"""One small module for each API. This table says which of them answers on which path."""

from __future__ import annotations

from collections.abc import Collection

from serve_app.dialects.cohere import COHERE_V2
from serve_app.dialects.dialect import Answer, Dialect, ParsedRequest, common_error, within
from serve_app.dialects.fields import Body
from serve_app.dialects.jina import JINA
from serve_app.dialects.mixedbread import MIXEDBREAD
from serve_app.dialects.nvidia import NVIDIA
from serve_app.dialects.tei import TEI
from serve_app.dialects.vllm import LEFT, VLLM_RERANK, VLLM_SCORE
from serve_app.dialects.voyage import VOYAGE

__all__ = [
    "ROUTES",
    "Answer",
    "Body",
    "Dialect",
    "ParsedRequest",
    "choose",
    "common_error",
    "within",
]

# The first dialect of a path also writes the errors for bodies that cannot be told apart.
ROUTES: dict[str, tuple[Dialect, ...]] = {
    "/v2/rerank": (COHERE_V2,),
    "/v1/rerank": (JINA, VOYAGE),
    "/rerank": (VLLM_RERANK, TEI),
    # As llama.cpp and SageMaker's containers call it.
    "/reranking": (VLLM_RERANK, TEI),
    "/v1/reranking": (VLLM_RERANK, TEI, MIXEDBREAD),
    "/invocations": (VLLM_RERANK, TEI, VLLM_SCORE),
    "/score": (VLLM_SCORE,),
    "/v1/score": (VLLM_SCORE,),
    "/v1/ranking": (NVIDIA,),
}


def choose(path: str, given: Collection[str]) -> Dialect:
    """Return the dialect of a body by its fields: `texts` is TEI's, `input` Mixedbread's, `top_k`
    Voyage's, `queries`, `text_1` or `data_1` without `query` that of vLLM's scores."""
    dialects = ROUTES[path]
    if TEI in dialects and "texts" in given and "documents" not in given:
        return TEI
    if MIXEDBREAD in dialects and "input" in given and "documents" not in given:
        return MIXEDBREAD
    if VOYAGE in dialects and not {"top_k", "truncation"}.isdisjoint(given):
        return VOYAGE
    if VLLM_SCORE in dialects and "query" not in given and not set(LEFT).isdisjoint(given):
        return VLLM_SCORE
    return dialects[0]
