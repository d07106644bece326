"""Requests in, ranked results out. It does not know what kind of model scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rerank_core.calibration import Calibration
from rerank_core.config import ScorerConfig
from rerank_core.errors import InvalidRequest, invalid
from rerank_core.ranking import activate
from rerank_core.ranking import rank_request as rank_request
from rerank_core.scorers import load_scorer
from rerank_core.types import (
    Candidate,
    QueryDocumentPair,
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
    def load(cls, model: str | Path | ScorerConfig = "embedded", **settings: Any) -> Reranker:
        """Load a model by name or folder, or all that a ScorerConfig names.

        `settings` are fields of ScorerConfig and go before the config's own, as in
        `Reranker.load("BAAI/bge-reranker-v2-m3", dtype="bfloat16")`.

        Raises ModelUnavailable with the fix; InvalidRequest for a setting that is unknown or wrong,
        and for a calibration of another scorer.
        """
        config = _config(model, settings)
        scorer = load_scorer(config)
        if config.calibration is None:
            return cls(scorer)
        return cls(scorer, Calibration.load(config.calibration, scorer.info.fingerprint))

    def rank(
        self,
        query: str,
        documents: Sequence[str | Candidate],
        top_k: int | None = None,
        *,
        max_tokens_per_query: int | None = None,
        max_tokens_per_doc: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
    ) -> RerankResult:
        """Rank documents for one query; going through the result yields the best first.

        A hit's `index` is the document's place in `documents`, and its `doc_id` the same as text
        unless the document came as a Candidate. What could not be scored is in the result's
        `failed`, with the reason. The other options are those of RerankRequest.

        Raises InvalidRequest where `check_request` does.
        """
        request = RerankRequest(
            query,
            _candidates(documents),
            top_k,
            max_tokens_per_query,
            max_tokens_per_doc,
            score_threshold,
            instruction,
        )
        return self.rerank([request])[0]

    def rerank(self, requests: Sequence[RerankRequest]) -> list[RerankResult]:
        """Answer every request, in input order, scoring the pairs of all of them together.

        A candidate that cannot be scored is listed in its result's `failed`; the others are ranked.
        Raises InvalidRequest where `check_request` does.
        """
        for request in requests:
            check_request(request)
        scores = self.scorer.score(
            [pair for n, request in enumerate(requests) for pair in pairs_of(request, str(n))]
        )
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


def _config(model: str | Path | ScorerConfig, settings: dict[str, Any]) -> ScorerConfig:
    if isinstance(model, ScorerConfig):
        given = model.model_dump(exclude_unset=True)
    else:
        given = {"model": str(model)}
    try:
        return ScorerConfig.model_validate(given | settings)
    except ValidationError as error:
        raise invalid(error) from None


def _candidates(documents: Sequence[str | Candidate]) -> tuple[Candidate, ...]:
    if isinstance(documents, str):  # which is a sequence of one-letter documents
        raise InvalidRequest("documents must be a list of texts, not one text", "documents")
    found = []
    for index, document in enumerate(documents):
        if not isinstance(document, str | Candidate):
            kind = type(document).__name__
            message = f"documents.{index} must be a text or a Candidate, not {kind}"
            raise InvalidRequest(message, f"documents.{index}")
        one = document if isinstance(document, Candidate) else Candidate(str(index), document)
        found.append(one)
    return tuple(found)


def check_request(request: RerankRequest) -> None:
    """Raise InvalidRequest for a blank query, a limit below 1, a threshold that is no number."""
    if not request.query.strip():
        raise InvalidRequest("query must not be blank", "query")
    if request.top_k is not None and request.top_k < 1:
        raise InvalidRequest("top_k must be at least 1; leave it out to keep all", "top_k")
    for name in ("max_tokens_per_query", "max_tokens_per_doc", "max_tokens_per_pair"):
        limit = getattr(request, name)
        if limit is not None and limit < 1:
            raise InvalidRequest(f"{name} must be at least 1; leave it out for no limit", name)
    if request.score_threshold is not None and not math.isfinite(request.score_threshold):
        raise InvalidRequest(
            "score_threshold must be a finite number; leave it out to keep all", "score_threshold"
        )


def pairs_of(request: RerankRequest, query_id: str | None = None) -> Iterable[QueryDocumentPair]:
    """Yield one pair per candidate, in input order.

    Pairs that are scored together with those of other requests need a `query_id` of their own.
    """
    return (
        QueryDocumentPair(
            request.query,
            candidate.text,
            request.max_tokens_per_query,
            request.max_tokens_per_doc,
            request.instruction,
            query_id,
            request.max_tokens_per_pair,
        )
        for candidate in request.candidates
    )
