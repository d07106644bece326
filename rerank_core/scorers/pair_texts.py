"""Cuts pairs to a token limit and hands them on as text, for models that tokenise themselves.

The query is protected: it keeps its share, and only the document loses what is too much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rerank_core.limits import PairLimits
from rerank_core.scorers.texts import TextTokenizer
from rerank_core.types import QueryDocumentPair


@dataclass(frozen=True, slots=True)
class CutPair:
    """A pair's texts as the model will read them, and its tokens with the template's."""

    query: str
    document: str
    tokens: int
    truncated: bool

    def __len__(self) -> int:
        return self.tokens


class PairCutter:
    """`max_length` counts a whole pair, the tokenizer's special tokens included."""

    def __init__(self, tokenizer: Any, max_length: int, max_query_tokens: int | None) -> None:
        self.texts = TextTokenizer(tokenizer)
        self.max_length = max_length
        self._overhead = int(tokenizer.num_special_tokens_to_add(pair=True))
        self._limits = PairLimits.of(max_length, max_query_tokens, self._overhead)

    def document_room(self, pair: QueryDocumentPair) -> int:
        """Return how many of the document's tokens the model can read beside the query."""
        query = self.texts.cut_text(pair.question, self._limits.query(pair))
        return self._limits.document(pair, self._overhead + (query[1] if query else 0))

    def cut(
        self, pairs: Sequence[QueryDocumentPair]
    ) -> tuple[list[CutPair | None], dict[int, str]]:
        """Cut pairs in input order; None and a reason for a pair the tokenizer fails on."""
        queries: dict[tuple[str, int], tuple[str, int, bool] | None] = {}
        out: list[CutPair | None] = []
        errors: dict[int, str] = {}
        for index, pair in enumerate(pairs):
            key = (pair.question, self._limits.query(pair))
            if key not in queries:
                queries[key] = self.texts.cut_text(*key)
            first = queries[key]
            room = self._limits.document(pair, self._overhead + (first[1] if first else 0))
            second = self.texts.cut_text(pair.document, room)
            if first is None or second is None:
                part = "query" if first is None else "document"
                errors[index] = f"the tokenizer failed on the {part}; send other text"
                out.append(None)
                continue
            tokens = self._overhead + first[1] + second[1]
            out.append(CutPair(first[0], second[0], tokens, first[2] or second[2]))
        return out, errors
