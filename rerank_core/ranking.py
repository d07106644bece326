"""Order: descending scores, ties by input order, top_k. It does not know where scores come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rerank_core.errors import InvalidRequest, ScoringFailed
from rerank_core.types import (
    FailedCandidate,
    Float32s,
    PairScores,
    RankedCandidate,
    RerankRequest,
    RerankResult,
)

if TYPE_CHECKING:
    from rerank_core.calibration import Calibration


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


def rank_request(
    request: RerankRequest,
    scores: PairScores,
    activated: Float32s,
    calibration: Calibration | None = None,
) -> RerankResult:
    """Rank one request's candidates from their scores (one entry per candidate, in order).

    The order follows the raw scores: the sigmoid of large logits saturates and would tie them.
    `score_threshold` is held against `activated`, the scores that the answer shows; one equal to
    the threshold stays. What falls below is neither ranked nor failed. Candidates that only a
    cascade's first stage saw pass no threshold and have no calibrated score.
    """
    candidates = request.candidates
    threshold, unseen = request.score_threshold, scores.first_stage_only
    scored = [i for i in range(len(candidates)) if i not in scores.errors]
    if threshold is not None:
        scored = [i for i in scored if i not in unseen and float(activated[i]) >= threshold]
    calibrated = None if calibration is None else calibration.apply(scores.raw)
    order = rank_scores(scores.raw[scored], request.top_k)
    ranked = tuple(
        RankedCandidate(
            index=i,
            doc_id=candidates[i].doc_id,
            rank=rank,
            score=float(activated[i]),
            raw_score=float(scores.raw[i]),
            tokens=int(scores.tokens[i]),
            truncated=bool(scores.truncated[i]),
            passage=scores.passages.get(i),
            calibrated_score=(None if calibrated is None or i in unseen else float(calibrated[i])),
            first_stage_only=i in unseen,
        )
        for rank, i in enumerate((scored[place] for place in order), start=1)
    )
    failed = tuple(
        FailedCandidate(i, candidates[i].doc_id, reason)
        for i, reason in sorted(scores.errors.items())
    )
    return RerankResult(ranked, failed, int(scores.tokens.sum()))
