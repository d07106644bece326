"""A scorer that only takes time: a fixed cost a pass, and tokens / rate. For tests without a GPU.

It sleeps, so that many replicas share one CPU as they would share a cluster of GPUs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from rerank_core import PairScores, QueryDocumentPair, ScorerConfig, ScorerInfo
from rerank_core.types import LoadedScorer
from serve_app.application import LoadScorer

MAX_BATCH_TOKENS = 4096


class SimulatedScorer:
    """Counts words as tokens, scores by the document's length, and sleeps as long as it says."""

    def __init__(self, config: ScorerConfig, tokens_per_s: float, fixed_s: float) -> None:
        self._tokens_per_s = tokens_per_s
        self._fixed_s = fixed_s
        self.info = ScorerInfo(
            model="simulated",
            revision=None,
            backend="simulated",
            device="none",
            dtype="float32",
            max_length=8192,
            max_batch_tokens=config.max_batch_tokens or MAX_BATCH_TOKENS,
            activation="sigmoid",
            fingerprint="simulated",
        )

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        """Score every pair, in input order; fewer words are better."""
        words = [pair.query.count(" ") + pair.document.count(" ") + 2 for pair in pairs]
        tokens = np.array(words, dtype=np.int32)
        time.sleep(self._fixed_s + float(tokens.sum()) / self._tokens_per_s)
        return PairScores(-tokens.astype(np.float32), tokens, np.zeros(len(pairs), np.bool_))

    def warm_up(self) -> None:
        """Do nothing."""


def simulated(tokens_per_s: float, fixed_s: float = 0.005) -> LoadScorer:
    """Return what loads such scorers, for `serve_app.application.build`."""
    return partial(_load, tokens_per_s=tokens_per_s, fixed_s=fixed_s)


def _load(config: ScorerConfig, tokens_per_s: float, fixed_s: float) -> LoadedScorer:
    return SimulatedScorer(config, tokens_per_s, fixed_s)
