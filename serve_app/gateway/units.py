"""A request becomes work units of bounded token cost. Pure functions.

They know no tokenizer: the gateway runs without one, so costs are estimates from the texts' bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from rerank_core import QueryDocumentPair, ScorerConfig, ScorerInfo

Ints = npt.NDArray[np.int64]

# UTF-8 bytes of a token: about 4 in English; a Chinese character has 3 bytes and is 0.7 tokens.
_BYTES_PER_TOKEN = 4
_SPECIAL_TOKENS = 4


def most_tokens(scorer: ScorerConfig, info: ScorerInfo) -> int:
    """Return the most tokens that a scorer reads of one pair."""
    passages = scorer.max_passages if scorer.long_documents == "split" else 1
    return info.max_length * passages


def tokens_of(size: int) -> int:
    """Return the estimated tokens of so many bytes."""
    return size // _BYTES_PER_TOKEN + _SPECIAL_TOKENS


def estimate_tokens(pairs: Sequence[QueryDocumentPair], most: int) -> list[int]:
    """Return an estimated token count per pair, at most `most`: what the model reads of one."""
    query_bytes: dict[str, int] = {}
    costs = []
    for pair in pairs:
        query = pair.question
        if query not in query_bytes:
            query_bytes[query] = len(query.encode())
        size = _within(query_bytes[query], pair.max_query_tokens)
        size += _within(len(pair.document.encode()), pair.max_document_tokens)
        costs.append(min(tokens_of(size), pair.max_tokens or most, most))
    return costs


def cut_units(costs: Sequence[int], unit_tokens: int) -> list[range]:
    """Cut pairs into runs of about equal cost, each at most `unit_tokens` or a single pair.

    Every index is in exactly one run, in order; merging is therefore concatenation.
    """
    if unit_tokens < 1:
        raise ValueError(f"unit_tokens must be at least 1, not {unit_tokens}")
    if not costs:
        return []
    if sum(costs) <= unit_tokens or len(costs) == 1:
        return [range(len(costs))]
    ends = np.cumsum(costs)
    fewest = -(-int(ends[-1]) // unit_tokens)
    # Equal runs finish together; a full one and a rest would not. Twice the fewest always fits: a
    # cut then falls into every half unit.
    for count in range(fewest, 2 * fewest, 1 + fewest // 16):
        edges = _edges(ends, count)
        if _fits(ends, edges, unit_tokens):
            break
    else:
        edges = _edges(ends, 2 * fewest)
    return [range(start, stop) for start, stop in pairwise(edges.tolist())]


def share_out(runs: Sequence[range], calls: int) -> list[Sequence[range]]:
    """Deal runs out to at most so many calls, each a stretch of neighbours, equally many."""
    edges = [len(runs) * call // calls for call in range(calls + 1)]
    return [runs[start:stop] for start, stop in pairwise(edges) if stop > start]


def _edges(ends: Ints, count: int) -> Ints:
    """Return where `count` runs begin and end: the edges between pairs nearest to equal shares."""
    wanted = ends[-1] * np.arange(1, count) / count
    after = np.searchsorted(ends, wanted)
    before = np.where(after > 0, ends[after - 1], 0)
    nearest = after + (ends[after] - wanted < wanted - before)
    return np.unique([0, *nearest, len(ends)])


def _fits(ends: Ints, edges: Ints, unit_tokens: int) -> bool:
    sums = np.diff(np.concatenate([[0], ends])[edges])
    return bool(((sums <= unit_tokens) | (np.diff(edges) == 1)).all())


def _within(size: int, max_tokens: int | None) -> int:
    return size if max_tokens is None else min(size, max_tokens * _BYTES_PER_TOKEN)
