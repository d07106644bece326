"""The fake we ship: scores by shared words, instant, deterministic, no weights.

Useful for tests, for trying a deployment without a model, and as a floor in evaluations. It does
not know meaning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import islice
from types import SimpleNamespace

import numpy as np

from rerank_core.catalog.resolve import LEXICAL_LENGTH, Resolved
from rerank_core.scorers.encoder import PairEncoder, TokenizedPair
from rerank_core.scorers.frame import TemplateFrame
from rerank_core.scorers.pipeline import score_pool
from rerank_core.scorers.texts import TextIds, TextTokenizer
from rerank_core.types import Float32s, PairScores, QueryDocumentPair, ScorerInfo

# A word of letters and digits, or one Chinese, Japanese or Korean character.
_TERM = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")
_NONE = np.empty(0, dtype=np.int64)


class LexicalScorer:
    """Raw score: logit of the share of the query's distinct terms that the document has.

    Long documents lose a little, so that of two documents with the same words the shorter wins.
    `info` says what was loaded.
    """

    def __init__(self, resolved: Resolved, fingerprint: str) -> None:
        config = resolved.config
        frame = TemplateFrame(_Terms(), _NONE, _NONE, _NONE, None)
        self.encoder = PairEncoder(
            frame, resolved.max_length, config.max_query_tokens, resolved.policy
        )
        self.info = ScorerInfo(
            model="lexical",
            revision=None,
            backend="lexical",
            device="cpu",
            dtype="float32",
            max_length=resolved.max_length,
            max_batch_tokens=config.max_batch_tokens or LEXICAL_LENGTH,
            activation=resolved.activation,
            fingerprint=fingerprint,
        )

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        """Score every pair, in input order; a token is a word or an ideograph."""
        encoder = self.encoder
        scores = score_pool(pairs, encoder.encode, _score, passage_score=encoder.passage_score)
        return scores.stamped(self.info.fingerprint)

    def warm_up(self) -> None:
        """Do nothing: the first call is as fast as any."""


class _Terms(TextTokenizer):
    """Stands where a tokenizer is elsewhere: a term's id is its hash, equal within a process."""

    def __init__(self) -> None:
        super().__init__(None, backend=self)

    def batch(
        self, texts: Sequence[str], max_tokens: int, *, offsets: bool = False
    ) -> dict[str, TextIds | None]:
        """Find the first terms of each distinct text, and one more, which says there are more."""
        out: dict[str, TextIds | None] = {}
        for text in dict.fromkeys(texts):
            found = list(islice(_TERM.finditer(text), max_tokens + 1))
            # Word by word: the lower case of a whole text may be longer than the text.
            ids = np.array([hash(match[0].lower()) for match in found], dtype=np.int64)
            spans = SimpleNamespace(offsets=[match.span() for match in found]) if offsets else None
            out[text] = TextIds(ids, False, spans)
        return out


def _score(items: Sequence[TokenizedPair]) -> tuple[Float32s, dict[int, str]]:
    return np.array([_logit(item) for item in items], dtype=np.float32), {}


def _logit(item: TokenizedPair) -> float:
    wanted, words = set(item.head.tolist()), item.tail.tolist()
    share = len(wanted.intersection(words)) / len(wanted) if wanted else 0.0
    share = min(max(share, 0.001), 0.999)
    return math.log(share / (1 - share)) - 0.01 * math.log1p(len(words))
