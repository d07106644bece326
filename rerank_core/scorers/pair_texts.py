"""Cuts pairs to a token limit and hands them on as text, for models that tokenise themselves.

The query is protected: it keeps its share, and only the document loses what is too much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rerank_core.types import QueryDocumentPair

# See pair_tokens: only bounds the time that a pathological text can cost.
_CHARACTERS_PER_TOKEN = 24


@dataclass(frozen=True, slots=True)
class CutPair:
    """A pair's texts as the model will read them, and its tokens with the template's."""

    query: str
    document: str
    tokens: int
    truncated: bool

    def __len__(self) -> int:
        return self.tokens


@dataclass(frozen=True, slots=True)
class _CutText:
    text: str
    tokens: int
    cut: bool


class PairCutter:
    """`max_length` counts a whole pair; `overhead` tokens of it belong to the template."""

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        max_query_tokens: int | None,
        overhead: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._overhead = (
            tokenizer.num_special_tokens_to_add(pair=True) if overhead is None else overhead
        )
        room = max_length - self._overhead
        wanted = max_query_tokens if max_query_tokens is not None else max_length * 3 // 4
        self._max_query_tokens = max(1, min(wanted, room - 1))

    def cut(
        self, pairs: Sequence[QueryDocumentPair]
    ) -> tuple[list[CutPair | None], dict[int, str]]:
        """Cut pairs in input order; None and a reason for a pair the tokenizer fails on."""
        queries: dict[str, _CutText | None] = {}
        out: list[CutPair | None] = []
        errors: dict[int, str] = {}
        for index, (query, document) in enumerate(pairs):
            if query not in queries:
                queries[query] = self._cut_text(query, self._max_query_tokens)
            first = queries[query]
            room = self._max_length - self._overhead - (first.tokens if first else 0)
            second = self._cut_text(document, room)
            if first is None or second is None:
                part = "query" if first is None else "document"
                errors[index] = f"the tokenizer failed on the {part}; send other text"
                out.append(None)
                continue
            tokens = self._overhead + first.tokens + second.tokens
            out.append(CutPair(first.text, second.text, tokens, first.cut or second.cut))
        return out, errors

    def _cut_text(self, text: str, max_tokens: int) -> _CutText | None:
        limit = max_tokens * _CHARACTERS_PER_TOKEN
        # Half a surrogate pair is no character, and tokenizers refuse it.
        clean = text[:limit].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        try:
            encoded = self._tokenizer(
                clean, add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )
        except Exception:
            return None
        offsets = encoded["offset_mapping"]
        if len(offsets) <= max_tokens:
            return _CutText(clean, len(offsets), len(text) > limit)
        return _CutText(clean[: offsets[max_tokens - 1][1]], max_tokens, True)
