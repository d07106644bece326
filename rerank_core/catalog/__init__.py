"""What is known of models before they are loaded: families as data, and which one a model is of.

It does not know tokenizers or torch.
"""

from __future__ import annotations

from rerank_core.catalog.families import (
    BGE_GEMMA,
    CAUSAL_FAMILIES,
    MXBAI_V2,
    QWEN3_RERANKER,
    CausalFamily,
)

__all__ = [
    "BGE_GEMMA",
    "CAUSAL_FAMILIES",
    "MXBAI_V2",
    "QWEN3_RERANKER",
    "CausalFamily",
    "find_family",
]


def find_family(model: str, model_type: str, template: str | None) -> CausalFamily | None:
    """Return the family by its template's name, else by the model's name, else by its type.

    None where nothing fits: scoring such a model would give numbers without meaning.
    """
    if template is not None:
        return CAUSAL_FAMILIES.get(template)
    spelled = model.lower().replace("_", "-")
    for family in CAUSAL_FAMILIES.values():
        if any(part in spelled for part in family.name_parts):
            return family
    if "rerank" not in spelled:
        return None
    return next((f for f in CAUSAL_FAMILIES.values() if model_type in f.model_types), None)
