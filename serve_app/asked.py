"""From a body to an Ask, and from scores to its ranking. Pure functions; they know no HTTP."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from rerank_core import (
    InvalidRequest,
    PairScores,
    RerankResult,
    ScorerConfig,
    ScorerInfo,
    ScoringFailed,
)
from rerank_core.ranking import activate
from rerank_core.reranker import rank_request
from serve_app.dialects import Ask, Dialect
from serve_app.scatter import LoadedModel


def read_ask(dialect: Dialect, body: dict[str, Any]) -> Ask:
    """Return what a body asks for. Raises InvalidRequest, which never quotes the body."""
    try:
        return dialect.read(dialect.body.model_validate(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        # A location holds names and indices; only a key of an object could be the caller's text.
        param = ".".join(str(part) for part in first["loc"][:2])[:80]
        raise InvalidRequest(f"{param}: {first['msg']}", param) from None


def rank_ask(ask: Ask, scores: PairScores, loaded: LoadedModel) -> RerankResult:
    """Rank one request's candidates. Raises for a pair without a score, or one that was cut."""
    if scores.errors:
        index, reason = min(scores.errors.items())
        raise ScoringFailed(f"document {index} could not be scored: {reason}")
    if ask.refuse_truncation and scores.truncated.any():
        index = int(scores.truncated.argmax())
        raise InvalidRequest(
            f"document {index} is longer than the model reads; shorten it or allow truncation",
            f"{ask.field}.{index}",
        )
    # The threshold then counts on the same scores that are shown.
    activation = "identity" if ask.raw_scores else loaded.info.activation
    shown = activate(scores.raw, activation)
    return rank_request(ask.request, scores, shown, loaded.calibration)


def most_tokens(scorer: ScorerConfig, info: ScorerInfo) -> int:
    """Return the most tokens that a scorer reads of one pair."""
    passages = scorer.max_passages if scorer.long_documents == "split" else 1
    return info.max_length * passages
