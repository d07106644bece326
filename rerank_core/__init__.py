"""Scores pairs and ranks candidates. Knows nothing of Ray, HTTP or Parquet."""

from rerank_core.batching import plan_batches
from rerank_core.calibration import Calibration
from rerank_core.config import FirstStage, ScorerConfig
from rerank_core.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelUnavailable,
    Overloaded,
    RerankError,
    ScoringFailed,
)
from rerank_core.ranking import activate, rank_scores
from rerank_core.reranker import Reranker
from rerank_core.scorers import load_scorer
from rerank_core.types import (
    Candidate,
    FailedCandidate,
    LoadedScorer,
    PairScores,
    QueryDocumentPair,
    RankedCandidate,
    RerankRequest,
    RerankResult,
    Scorer,
    ScorerInfo,
)

__all__ = [
    "Calibration",
    "Candidate",
    "DeadlineExceeded",
    "FailedCandidate",
    "FirstStage",
    "InvalidRequest",
    "LoadedScorer",
    "ModelUnavailable",
    "Overloaded",
    "PairScores",
    "QueryDocumentPair",
    "RankedCandidate",
    "RerankError",
    "RerankRequest",
    "RerankResult",
    "Reranker",
    "Scorer",
    "ScorerConfig",
    "ScorerInfo",
    "ScoringFailed",
    "activate",
    "load_scorer",
    "plan_batches",
    "rank_scores",
]
