"""Requests in, ranked results out. Does not know what kind of model scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rerank_core.calibration import Calibration
from rerank_core.config import ScorerConfig
from rerank_core.errors import InvalidRequest
from rerank_core.ranking import activate, rank_scores
from rerank_core.scorers import load_scorer
from rerank_core.types import (
    FailedCandidate,
    Float32s,
    PairScores,
    QueryDocumentPair,
    RankedCandidate,
    RerankRequest,
    RerankResult,
    Scorer,
)


class Reranker:
    """Ranks candidates with one scorer. Not thread-safe, as the scorer is not."""

    def __init__(self, scorer: Scorer, calibration: Calibration | None = None) -> None:
        self.scorer = scorer
        self.calibration = calibration

    @classmethod
    def load(cls, config: ScorerConfig) -> Reranker:
        """Load all that `config` names: the scorer, and the calibration where there is one.

        Raises ModelUnavailable with the fix, InvalidRequest for a calibration of another scorer.
        """
        scorer = load_scorer(config)
        if config.calibration is None:
            return cls(scorer)
        return cls(scorer, Calibration.load(config.calibration, scorer.info.fingerprint))

    def rerank(self, requests: Sequence[RerankRequest]) -> list[RerankResult]:
        """Answer every request, in input order, scoring the pairs of all of them together.

        A candidate that cannot be scored is listed in its result's `failed`; the others are ranked.
        Raises InvalidRequest where `check_request` does.
        """
        for request in requests:
            check_request(request)
        scores = self.scorer.score([pair for request in requests for pair in pairs_of(request)])
        activated = activate(scores.raw, self.scorer.info.activation)
        results, start = [], 0
        for request in requests:
            stop = start + len(request.candidates)
            results.append(
                rank_request(
                    request,
                    scores.part(start, stop),
                    activated[start:stop],
                    self.calibration,
                )
            )
            start = stop
        return results


def check_request(request: RerankRequest) -> None:
    """Raise InvalidRequest for a blank query, a limit below 1, a threshold that is no number."""
    if not request.query.strip():
        raise InvalidRequest("query must not be blank", "query")
    if request.top_k is not None and request.top_k < 1:
        raise InvalidRequest("top_k must be at least 1; leave it out to keep all", "top_k")
    for name in ("max_tokens_per_query", "max_tokens_per_doc"):
        limit = getattr(request, name)
        if limit is not None and limit < 1:
            raise InvalidRequest(f"{name} must be at least 1; leave it out for no limit", name)
    if request.score_threshold is not None and not math.isfinite(request.score_threshold):
        raise InvalidRequest(
            "score_threshold must be a finite number; leave it out to keep all", "score_threshold"
        )


def pairs_of(request: RerankRequest) -> Iterable[QueryDocumentPair]:
    """Yield one pair per candidate, in input order."""
    return (
        QueryDocumentPair(
            request.query,
            candidate.text,
            request.max_tokens_per_query,
            request.max_tokens_per_doc,
            request.instruction,
        )
        for candidate in request.candidates
    )


def rank_request(
    request: RerankRequest,
    scores: PairScores,
    activated: Float32s,
    calibration: Calibration | None = None,
) -> RerankResult:
    """Rank one request's candidates from their scores (one entry per candidate, in order).

    The order follows the raw scores: the sigmoid of large logits saturates and would tie them.
    `score_threshold` is held against `activated`, the scores that the answer shows; one equal to
    the threshold stays. What falls below is neither ranked nor failed.
    """
    candidates = request.candidates
    threshold = -math.inf if request.score_threshold is None else request.score_threshold
    scored = [
        i
        for i in range(len(candidates))
        if i not in scores.errors and float(activated[i]) >= threshold
    ]
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
            calibrated_score=None if calibrated is None else float(calibrated[i]),
        )
        for rank, i in enumerate((scored[place] for place in order), start=1)
    )
    failed = tuple(
        FailedCandidate(i, candidates[i].doc_id, reason)
        for i, reason in sorted(scores.errors.items())
    )
    return RerankResult(ranked, failed, int(scores.tokens.sum()))
