"""From a request's scores to its answer. Pure functions; they know no HTTP."""

from __future__ import annotations

import time
from collections.abc import Collection

from rerank_core import InvalidRequest, PairScores, RerankResult, ScoringFailed
from rerank_core.ranking import activate
from rerank_core.reranker import rank_request
from serve_app.dialects import Answer, ParsedRequest
from serve_app.http.errors import UnscorableDocument
from serve_app.pool import LoadedModel


def answer_of(
    request: ParsedRequest, scores: PairScores, loaded: LoadedModel, *, id: str, model: str
) -> Answer:
    """Return what the dialect writes. Raises where `rank` does."""
    cut = request.cut.union(scores.truncated.nonzero()[0].tolist())
    return Answer(
        id=f"rerank-{id}",
        model=model,
        created=int(time.time()),
        result=rank(request, scores, loaded, cut),
        truncated=tuple(sorted(cut)),
        failed=tuple(sorted(scores.errors)),
        ignored=request.ignored,
    )


def rank(
    request: ParsedRequest, scores: PairScores, loaded: LoadedModel, cut: Collection[int]
) -> RerankResult:
    """Rank one request's candidates; `cut` has those that were not read whole.

    Raises UnscorableDocument for a pair without a score, unless the request leaves such out,
    ScoringFailed where none of several has one (then the model is at fault, not a document), and
    InvalidRequest for a pair that was cut where the request forbids it.
    """
    if scores.errors:
        _check_errors(request, scores)
    if request.refuse_truncation and cut:
        index = min(cut)
        raise InvalidRequest(
            f"document {index} is longer than the model reads; shorten it or allow truncation",
            f"{request.field}.{index}",
        )
    # The threshold then counts on the same scores that are shown.
    activation = "identity" if request.raw_scores else loaded.info.activation
    shown = activate(scores.raw, activation)
    return rank_request(request.request, scores, shown, loaded.calibration)


def _check_errors(request: ParsedRequest, scores: PairScores) -> None:
    index, reason = min(scores.errors.items())
    if 1 < len(scores) == len(scores.errors):
        raise ScoringFailed(f"no document could be scored; the first: {reason}")
    if not request.skip_errors:
        raise UnscorableDocument(
            f"document {index} could not be scored ({reason}); leave it out or send on_error: skip",
            f"{request.field}.{index}",
        )
