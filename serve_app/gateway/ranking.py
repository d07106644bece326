"""From a request's scores to its answer. Pure functions; they know no HTTP."""

from __future__ import annotations

import time

from rerank_core import InvalidRequest, PairScores, RerankResult, ScoringFailed
from rerank_core.ranking import activate
from rerank_core.reranker import rank_request
from serve_app.dialects import Answer, ParsedRequest
from serve_app.pool import LoadedModel


def answer_of(
    request: ParsedRequest, scores: PairScores, loaded: LoadedModel, *, id: str, model: str
) -> Answer:
    """Return what the dialect writes. Raises where `rank` does."""
    return Answer(
        id=f"rerank-{id}",
        model=model,
        created=int(time.time()),
        result=rank(request, scores, loaded),
        truncated=tuple(scores.truncated.nonzero()[0].tolist()),
    )


def rank(request: ParsedRequest, scores: PairScores, loaded: LoadedModel) -> RerankResult:
    """Rank one request's candidates. Raises for a pair without a score, or one that was cut."""
    if scores.errors:
        index, reason = min(scores.errors.items())
        raise ScoringFailed(f"document {index} could not be scored: {reason}")
    if request.refuse_truncation and scores.truncated.any():
        index = int(scores.truncated.argmax())
        raise InvalidRequest(
            f"document {index} is longer than the model reads; shorten it or allow truncation",
            f"{request.field}.{index}",
        )
    # The threshold then counts on the same scores that are shown.
    activation = "identity" if request.raw_scores else loaded.info.activation
    shown = activate(scores.raw, activation)
    return rank_request(request.request, scores, shown, loaded.calibration)
