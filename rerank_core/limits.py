"""Who gets how many tokens of a pair. Pure; it does not know tokenizers or models."""

from __future__ import annotations

from dataclasses import dataclass

from rerank_core.errors import ModelUnavailable
from rerank_core.types import QueryDocumentPair


@dataclass(frozen=True, slots=True)
class PairLimits:
    """The tokens of one pair: at most `max_length`, of which a query keeps `max_query_tokens`.

    `max_length` counts what stands around the texts, too. A document gets what is left; both get
    less where the pair itself says so.
    """

    max_length: int
    max_query_tokens: int
    frame_tokens: int = 0

    @classmethod
    def of(cls, max_length: int, max_query_tokens: int | None, frame_tokens: int) -> PairLimits:
        """Resolve a query's share beside a frame; ModelUnavailable where that leaves no room."""
        if max_length < frame_tokens + 2:
            raise ModelUnavailable(
                f"max_length {max_length} leaves no room: what stands around the texts (special"
                f" tokens, or the prompt) alone takes {frame_tokens} tokens"
            )
        share = _share(max_length, max_query_tokens, frame_tokens)
        return cls(max_length, share, frame_tokens)

    def query(self, pair: QueryDocumentPair) -> int:
        """Return how many tokens of its query the model reads."""
        most = self.max_query_tokens
        if pair.max_tokens is not None:
            most = min(most, _share(pair.max_tokens, None, self.frame_tokens))
        return most if pair.max_query_tokens is None else min(pair.max_query_tokens, most)

    def longest(self, pair: QueryDocumentPair) -> int:
        """Return how many tokens the model reads at most, with what stands around the texts."""
        return self.max_length if pair.max_tokens is None else min(self.max_length, pair.max_tokens)

    def room(self, pair: QueryDocumentPair, taken: int) -> int:
        """Return how many tokens are left for a document, where `taken` are not free."""
        return max(0, self.longest(pair) - taken)


def _share(max_length: int, max_query_tokens: int | None, frame_tokens: int) -> int:
    # A document always keeps a token, or all documents of a long query would score the same.
    wanted = query_share(max_length, max_query_tokens)
    return max(1, min(wanted, max_length - frame_tokens - 1))


def query_share(max_length: int, max_query_tokens: int | None) -> int:
    """Return the tokens of a pair that its query may keep: three quarters unless they are set."""
    return max_length * 3 // 4 if max_query_tokens is None else max_query_tokens


def usable_length(asked: int | None, *limits: int | None) -> int:
    """Return the tokens of a pair that a model can read: the least of what is known."""
    return min(limit for limit in (asked, *limits) if limit is not None and limit > 0)
