"""What is known of models before they are loaded: families as data, what a config resolves to."""

from rerank_core.catalog.families import (
    BGE_GEMMA,
    FAMILIES,
    MXBAI_V2,
    QWEN3_RERANKER,
    Family,
    find_family,
    read_template,
)

__all__ = [
    "BGE_GEMMA",
    "FAMILIES",
    "MXBAI_V2",
    "QWEN3_RERANKER",
    "Family",
    "find_family",
    "read_template",
]
