"""Long documents: split into overlapping passages, scored one by one, the best counts.

Works on any scorer. How a text falls into tokens is handed in; nothing here knows a tokenizer.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rerank_core.types import LoadedScorer, PairScores, QueryDocumentPair, ScorerInfo

# A sentence ends behind one of these; a Western full stop only before white space.
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s)|[。!?;…][”’」』)]*|\n+")
# A passage is tokenised again on its own, and may then have a few tokens more.
_MARGIN = 8
_TOP = 3

Offsets = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class SplitPolicy:
    """How documents are split and their passages' scores put together; see ScorerConfig."""

    passage_tokens: int | None = None
    overlap: int = 32
    score: str = "max"
    max_passages: int = 64


def split_document(
    text: str, offsets: Offsets, passage_tokens: int, overlap: int
) -> list[tuple[int, int]]:
    """Cut a text into passages of at most `passage_tokens`, as (start, end) in characters.

    `offsets` are the characters of each token. Neighbours share at least `overlap` tokens. A
    passage ends with a sentence where one ends in its second half, otherwise where it is full.
    """
    if passage_tokens < 1:
        raise ValueError(f"passage_tokens must be at least 1, not {passage_tokens}")
    overlap = min(overlap, passage_tokens // 2)
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    passages: list[tuple[int, int]] = []
    first = 0
    while first < len(offsets):
        last = min(first + passage_tokens, len(offsets))
        if last < len(offsets):
            last = _at_sentence_end(offsets, ends, first + (passage_tokens + 1) // 2, last)
        passages.append((offsets[first][0], _with_punctuation(text, offsets, last)))
        if last == len(offsets):
            break
        first = max(first + 1, last - overlap)
    return passages


def _with_punctuation(text: str, offsets: Offsets, last: int) -> int:
    """Return where a passage before token `last` ends, with marks that belong to no token."""
    end = offsets[last - 1][1]
    stop = offsets[last][0] if last < len(offsets) else len(text)
    while end < stop and not (text[end].isspace() or text[end].isalnum()):
        end += 1
    return end


def _at_sentence_end(offsets: Offsets, ends: Sequence[int], low: int, high: int) -> int:
    """Move a cut at token `high` back to the last sentence end that is not before `low`."""
    place = bisect.bisect_right(ends, offsets[high - 1][1]) - 1
    if place < 0:
        return high
    token = bisect.bisect_left(offsets, ends[place], key=lambda span: span[1])
    # The token that reaches the sentence's end belongs to the passage.
    cut = token + 1 if token < len(offsets) and offsets[token][0] < ends[place] else token
    return cut if low <= cut <= high else high


class SplittingScorer:
    """Scores every passage of a long document; the rest as the scorer below does.

    `offsets` gives a text's tokens (None if it cannot be read), `room` how many tokens of a pair's
    document the scorer reads.
    """

    def __init__(
        self,
        scorer: LoadedScorer,
        policy: SplitPolicy,
        offsets: Callable[[str, int], Offsets | None],
        room: Callable[[QueryDocumentPair], int],
    ) -> None:
        self._scorer = scorer
        self._policy = policy
        self._offsets = offsets
        self._room = room

    @property
    def info(self) -> ScorerInfo:
        """What was loaded."""
        return self._scorer.info

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        """Score every pair, in input order.

        `passages` has the best passage of each document that was split; `tokens` counts all of
        them; `truncated` says that even the passages left something unread.
        """
        rooms: dict[QueryDocumentPair, int] = {}
        spans = [self._spans(pair, rooms) for pair in pairs]
        parts = [
            replace(
                pair,
                document=pair.document[start:end],
                max_document_tokens=pair.max_document_tokens if whole else None,
            )
            for pair, (passages, whole, _) in zip(pairs, spans, strict=True)
            for start, end in passages
        ]
        scores = self._scorer.score(parts)
        return self._put_together(spans, scores)

    def warm_up(self) -> None:
        """Warm the scorer below."""
        self._scorer.warm_up()

    def _spans(
        self, pair: QueryDocumentPair, rooms: dict[QueryDocumentPair, int]
    ) -> tuple[list[tuple[int, int]], bool, bool]:
        """Return the passages, whether they are the whole document, whether some are left out."""
        whole = [(0, len(pair.document))], True, False
        key = replace(pair, document="", max_document_tokens=None)
        if key not in rooms:
            rooms[key] = self._room(key)
        room = rooms[key]
        policy = self._policy
        size = min(policy.passage_tokens or room, room)
        # No tokenizer makes more tokens than there are bytes.
        if 4 * len(pair.document) <= size:
            return whole
        limit = room * policy.max_passages
        if pair.max_document_tokens is not None:
            limit = min(limit, pair.max_document_tokens)
        if limit < 1:
            return whole
        # One more than is read tells whether anything lies behind.
        offsets = self._offsets(pair.document, limit + 1)
        if offsets is None or len(offsets) <= size:
            return whole
        more = len(offsets) > limit
        offsets = offsets[:limit]
        # Very long words or gaps can end what was tokenised before `limit` tokens are found.
        end = offsets[-1][1]
        behind = more or any(letter.isalnum() for letter in pair.document[end:])
        size = size - _MARGIN if size > 2 * _MARGIN else size
        passages = split_document(pair.document, offsets, size, policy.overlap)
        kept = passages[: policy.max_passages]
        return kept, False, behind or len(kept) < len(passages)

    def _put_together(
        self, spans: Sequence[tuple[list[tuple[int, int]], bool, bool]], scores: PairScores
    ) -> PairScores:
        raw = np.full(len(spans), np.nan, dtype=np.float32)
        tokens = np.zeros(len(spans), dtype=np.int32)
        truncated = np.zeros(len(spans), dtype=np.bool_)
        errors: dict[int, str] = {}
        best: dict[int, tuple[int, int]] = {}
        start = 0
        for index, (passages, whole, left_out) in enumerate(spans):
            places = range(start, start + len(passages))
            start += len(passages)
            tokens[index] = scores.tokens[list(places)].sum()
            scored = [i for i in places if i not in scores.errors]
            # A passage that could not be scored was not read either.
            cut = left_out or len(scored) < len(places)
            truncated[index] = cut or bool(scores.truncated[list(places)].any())
            if not scored:
                errors[index] = scores.errors[places[0]]
                continue
            order = sorted(scored, key=lambda i: -scores.raw[i])
            top = order[:_TOP] if self._policy.score == "mean_of_top" else order[:1]
            raw[index] = scores.raw[top].mean(dtype=np.float32)
            if not whole:
                best[index] = passages[order[0] - places[0]]
        return PairScores(raw, tokens, truncated, errors, best)
