"""The fake we ship: scores by shared words, instant, deterministic, no weights.

Useful for tests, for trying a deployment without a model, and as a floor in evaluations. It does
not know meaning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import islice

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
        for i, pair in enumerate(pairs):
            wanted = _terms(pair.question)[: pair.max_query_tokens]
            words = _terms(pair.document)
            room = max(0, self._max_length - len(wanted))
            if pair.max_document_tokens is not None:
                room = min(room, pair.max_document_tokens)
            truncated[i] = len(words) > room
            kept = words[:room]
            tokens[i] = len(wanted) + len(kept)
            raw[i] = _logit(set(wanted), kept)
        return PairScores(raw, tokens, truncated)

    def warm_up(self) -> None:
        """Do nothing: the first call is as fast as any."""

    @property
    def document_tokens(self) -> LexicalScorer:
        """What splitting long documents needs to know."""
        return self

    def document_room(self, pair: QueryDocumentPair) -> int:
        """Return how many of a document's terms count beside this query."""
        return max(1, self._max_length - len(_terms(pair.question)[: pair.max_query_tokens]))

    @property
    def texts(self) -> LexicalScorer:
        """Where the terms of a text are found."""
        return self

    def offsets(self, text: str, max_tokens: int) -> list[tuple[int, int]]:
        """Return where each of the first terms lies in `text`."""
        return [match.span() for match in islice(_TERM.finditer(text.lower()), max_tokens)]


def _terms(text: str) -> list[str]:
    return _TERM.findall(text.lower())


def _logit(wanted: set[str], words: list[str]) -> float:
    share = len(wanted & set(words)) / len(wanted) if wanted else 0.0
    share = min(max(share, 0.001), 0.999)
    return math.log(share / (1 - share)) - 0.01 * math.log1p(len(words))
