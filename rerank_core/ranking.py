"""Order: descending scores, ties by input order, top_k. It does not know where scores come from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rerank_core.errors import InvalidRequest, ScoringFailed
from rerank_core.types import Float32s


def rank_scores(scores: Float32s | Sequence[float], top_k: int | None = None) -> list[int]:
    """Return input indices, best score first; the rank of the i-th is i + 1.

    Equal scores keep their input order. `top_k` larger than the input means all.
    Raises InvalidRequest for `top_k` below 1, ScoringFailed for a score that is not finite.
    """
    if top_k is not None and top_k < 1:
        raise InvalidRequest(
            f"top_k must be at least 1, not {top_k}; leave it out to keep all", "top_k"
        )
    values = np.asarray(scores, dtype=np.float32)
    if not np.isfinite(values).all():
        raise ScoringFailed("a score is not finite; drop or rescore that pair before ranking")
    order = np.argsort(-values, kind="stable")
    return [int(index) for index in order[:top_k]]


def activate(raw: Float32s, activation: str) -> Float32s:
    """Map raw logits to scores in float32: `sigmoid` to 0..1, `identity` unchanged."""
    if activation == "identity":
        return raw
    if activation != "sigmoid":
        raise ValueError(f"unknown activation {activation!r}; use sigmoid or identity")
    # Two branches, so that neither exp overflows.
    small = np.exp(-np.abs(raw))
    return np.where(raw >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)
