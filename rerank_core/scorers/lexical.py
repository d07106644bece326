"""The fake we ship: scores by shared words, instant, deterministic, no weights.

Useful for tests, for trying a deployment without a model, and as a floor in evaluations. It does
not know meaning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from rerank_core.config import ScorerConfig
from rerank_core.types import PairScores, QueryDocumentPair, ScorerInfo

# A word of letters and digits, or one Chinese, Japanese or Korean character.
_TERM = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")
_MAX_LENGTH = 8192


class LexicalScorer:
    """Raw score: logit of the share of the query's distinct terms that the document has.

    Long documents lose a little, so that of two documents with the same words the shorter wins.
    """

    def __init__(self, config: ScorerConfig) -> None:
        self._max_length = config.max_length or _MAX_LENGTH
        self._info = ScorerInfo(
            model="lexical",
            revision=None,
            backend="lexical",
            device="cpu",
            dtype="float32",
            max_length=self._max_length,
            max_batch_tokens=config.max_batch_tokens or _MAX_LENGTH,
            activation="sigmoid" if config.activation == "auto" else config.activation,
            fingerprint=config.fingerprint(),
        )

    @property
    def info(self) -> ScorerInfo:
        """What was loaded."""
        return self._info

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        """Score every pair, in input order; a token is a word or an ideograph."""
        raw = np.empty(len(pairs), dtype=np.float32)
        tokens = np.empty(len(pairs), dtype=np.int32)
        truncated = np.zeros(len(pairs), dtype=np.bool_)
        for i, (query, document) in enumerate(pairs):
            wanted = _terms(query)
            words = _terms(document)
            room = max(0, self._max_length - len(wanted))
            truncated[i] = len(words) > room
            kept = words[:room]
            tokens[i] = len(wanted) + len(kept)
            raw[i] = _logit(set(wanted), kept)
        return PairScores(raw, tokens, truncated)


def _terms(text: str) -> list[str]:
    return _TERM.findall(text.lower())


def _logit(wanted: set[str], words: list[str]) -> float:
    share = len(wanted & set(words)) / len(wanted) if wanted else 0.0
    share = min(max(share, 0.001), 0.999)
    return math.log(share / (1 - share)) - 0.01 * math.log1p(len(words))
