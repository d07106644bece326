"""Long documents: cut into overlapping passages, scored one by one, the best counts.

Works on token offsets and scores; nothing here knows a tokenizer or a scorer.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rerank_core.types import PairScores

# A sentence ends behind one of these; a Western full stop only before white space.
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s)|[。!?;…][”’」』)]*|\n+")
_TOP = 3

Offsets = Sequence[tuple[int, int]]


class Passage(NamedTuple):
    """Where a passage lies in its document: in characters (start, end), in tokens (first, last).

    `end` and `last` are one past.
    """

    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class SplitPolicy:
    """How documents are split and their passages' scores merged; see ScorerConfig."""

    passage_tokens: int | None = None
    overlap: int = 32
    score: str = "max"
    max_passages: int = 64

    def size(self, room: int) -> int:
        """Return the tokens of a passage where the model reads `room` of a document."""
        return min(self.passage_tokens or room, room)


def split_document(text: str, offsets: Offsets, passage_tokens: int, overlap: int) -> list[Passage]:
    """Cut a text into passages of at most `passage_tokens`.

    `offsets` are the characters of each token. Neighbours share at least `overlap` tokens. A
    passage ends with a sentence where one ends in its second half, otherwise where it is full.
    """
    if passage_tokens < 1:
        raise ValueError(f"passage_tokens must be at least 1, not {passage_tokens}")
    overlap = min(overlap, passage_tokens // 2)
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    passages: list[Passage] = []
    first = 0
    while first < len(offsets):
        last = min(first + passage_tokens, len(offsets))
        if last < len(offsets):
            last = _at_sentence_end(offsets, ends, first + (passage_tokens + 1) // 2, last)
        end = _with_punctuation(text, offsets, last)
        passages.append(Passage(offsets[first][0], end, first, last))
        if last == len(offsets):
            break
        first = max(first + 1, last - overlap)
    return passages


def read_passages(
    text: str, offsets: Offsets, policy: SplitPolicy, room: int, max_tokens: int | None
) -> tuple[list[Passage], bool] | None:
    """Return the passages to read of a text, and whether they leave something of it out.

    None where all fits the model's `room`. `max_tokens` is the caller's own limit on the document.
    """
    size = policy.size(room)
    limit = size * policy.max_passages
    limit = limit if max_tokens is None else min(limit, max_tokens)
    if limit < 1 or min(len(offsets), len(offsets) if max_tokens is None else max_tokens) <= size:
        return None
    read = offsets[:limit]
    passages = split_document(text, read, size, policy.overlap)
    kept = passages[: policy.max_passages]
    # Very long words or gaps can end what was tokenised before `limit` tokens are found.
    behind = len(offsets) > limit or any(letter.isalnum() for letter in text[read[-1][1] :])
    return kept, behind or len(kept) < len(passages)


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


def merge_passages(
    scores: PairScores,
    owners: Sequence[int],
    passages: Mapping[int, Sequence[Passage]],
    unread: set[int],
    policy_score: str,
) -> tuple[PairScores, list[int]]:
    """Return one score per document from one per passage, and which document each is of.

    `owners` has the document of each entry in `scores`, `passages` those documents that were split,
    `unread` those of which even the passages left something out.
    """
    places: dict[int, list[int]] = {}
    for place, owner in enumerate(owners):
        places.setdefault(owner, []).append(place)
    raw = np.full(len(places), np.nan, dtype=np.float32)
    tokens = np.zeros(len(places), dtype=np.int32)
    truncated = np.zeros(len(places), dtype=np.bool_)
    errors: dict[int, str] = {}
    best: dict[int, tuple[int, int]] = {}
    for index, (owner, own) in enumerate(places.items()):
        tokens[index] = scores.tokens[own].sum()
        scored = [i for i in own if i not in scores.errors]
        # A passage that could not be scored was not read either.
        cut = owner in unread or len(scored) < len(own)
        truncated[index] = cut or bool(scores.truncated[own].any())
        if not scored:
            errors[index] = scores.errors[own[0]]
            continue
        order = sorted(scored, key=lambda i: -scores.raw[i])
        top = order[:_TOP] if policy_score == "mean_of_top" else order[:1]
        raw[index] = scores.raw[top].mean(dtype=np.float32)
        if owner in passages:
            chosen = passages[owner][order[0] - own[0]]
            best[index] = (chosen.start, chosen.end)
    return PairScores(raw, tokens, truncated, errors, best), list(places)
