"""Cuts texts to a caller's own token limits (`max_tokens_per_doc`, `max_tokens_per_query`).

Exact where the scorer offers `cut_text(text, max_tokens) -> (text, was_cut)`; elsewhere by the same
estimate of bytes for a token that admission uses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rerank_core import QueryDocumentPair, Scorer
from serve_app.work_units import BYTES_PER_TOKEN, WorkUnit

Cut = Callable[[str, int], tuple[str, bool]]


class TextCutter:
    """Cuts the units that ask for it, off the event loop."""

    def __init__(self, scorer: Scorer) -> None:
        self._cut: Cut = getattr(scorer, "cut_text", None) or cut_by_bytes
        # A limit that the model's own makes moot costs nothing.
        self._max_length = scorer.info.max_length

    async def cut(
        self, unit: WorkUnit
    ) -> tuple[Sequence[QueryDocumentPair], npt.NDArray[np.bool_] | None]:
        """Return the unit's pairs, and which were cut, or None if none can have been."""
        limits = [
            limit if limit is not None and limit < self._max_length else None
            for limit in (unit.max_query_tokens, unit.max_document_tokens)
        ]
        if limits == [None, None]:
            return unit.pairs, None
        return await asyncio.to_thread(self._cut_all, unit.pairs, *limits)

    def _cut_all(
        self, pairs: Sequence[QueryDocumentPair], query_limit: int | None, limit: int | None
    ) -> tuple[list[QueryDocumentPair], npt.NDArray[np.bool_]]:
        queries: dict[str, tuple[str, bool]] = {}
        out, was_cut = [], []
        for query, document in pairs:
            if query not in queries:
                queries[query] = self._maybe(query, query_limit)
            kept_query, query_cut = queries[query]
            kept, document_cut = self._maybe(document, limit)
            out.append(QueryDocumentPair(kept_query, kept))
            was_cut.append(query_cut or document_cut)
        return out, np.array(was_cut, dtype=np.bool_)

    def _maybe(self, text: str, limit: int | None) -> tuple[str, bool]:
        return (text, False) if limit is None else self._cut(text, limit)


def cut_by_bytes(text: str, max_tokens: int) -> tuple[str, bool]:
    """Keep about `max_tokens` tokens: their usual number of UTF-8 bytes, in whole characters."""
    encoded = text.encode()
    limit = max_tokens * BYTES_PER_TOKEN
    if len(encoded) <= limit:
        return text, False
    return encoded[:limit].decode(errors="ignore"), True
