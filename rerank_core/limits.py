"""Who gets how many tokens of a pair. Pure; it does not know tokenizers or models."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from rerank_core.types import QueryDocumentPair

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PairLimits:
    """The tokens of one pair: at most `max_length`, of which a query keeps `max_query_tokens`.

    `max_length` counts what stands around the texts, too. A document gets what is left; both get
    less where the pair itself says so.
    """

    max_length: int
    max_query_tokens: int

    @classmethod
    def of(cls, max_length: int, max_query_tokens: int | None, frame_tokens: int) -> PairLimits:
        """Resolve a query's share: three quarters unless it is set."""
        wanted = max_length * 3 // 4 if max_query_tokens is None else max_query_tokens
        # A document always keeps a token, or all documents of a long query would score the same.
        return cls(max_length, max(1, min(wanted, max_length - frame_tokens - 1)))

    def query(self, pair: QueryDocumentPair) -> int:
        """Return how many tokens of its query the model reads."""
        return min(pair.max_query_tokens or self.max_query_tokens, self.max_query_tokens)

    def document(self, pair: QueryDocumentPair, taken: int) -> int:
        """Return how many tokens of its document the model reads, where `taken` are not free."""
        room = max(0, self.max_length - taken)
        return room if pair.max_document_tokens is None else min(room, pair.max_document_tokens)


def usable_length(model: str, asked: int | None, *limits: int | None) -> int:
    """Return the tokens of a pair that a model can read: the least of its limits and `asked`.

    A limit of None or below 1 is none. A log line says so where more is asked than can be read.
    """
    limit = min(known for known in limits if known is not None and known > 0)
    if asked is not None and asked > limit:
        logger.warning("max_length %d is more than %r can read; using %d", asked, model, limit)
    return limit if asked is None else min(limit, asked)
