"""A request becomes work units of bounded token cost, and comes back whole. Pure functions.

It knows no tokenizer: the gateway runs without one, so costs are estimates from the texts' bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rerank_core import PairScores, QueryDocumentPair

# UTF-8 bytes of a token: about 4 in English; a Chinese character has 3 bytes and is 0.7 tokens.
_BYTES_PER_TOKEN = 4
_SPECIAL_TOKENS = 4


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """A slice of a request, sent to one replica.

    `cost` is in estimated tokens. `caller` groups the units of one request, so that a replica can
    take turns between requests. `timeout_s` is what was left of the deadline when it was sent.
    """

    pairs: tuple[QueryDocumentPair, ...]
    cost: int
    caller: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class UnitScores:
    """A replica's answer: scores in the unit's order, and the seconds of waiting and of scoring."""

    scores: PairScores
    queue_s: float
    inference_s: float


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
        costs.append(min(size // _BYTES_PER_TOKEN + _SPECIAL_TOKENS, most))
    return costs


def cut_units(costs: Sequence[int], unit_tokens: int) -> list[range]:
    """Cut pairs into runs of about equal cost, each at most `unit_tokens` or a single pair.

    Every index is in exactly one run, in order; merging is therefore concatenation.
    """
    if unit_tokens < 1:
        raise ValueError(f"unit_tokens must be at least 1, not {unit_tokens}")
    total = sum(costs)
    # Equal shares finish together; a full unit and a rest would not.
    share = total / -(-total // unit_tokens) if total else 1
    runs, start, used = [], 0, 0
    for index, cost in enumerate(costs):
        if index > start and used + cost > min(unit_tokens, share * 1.05):
            runs.append(range(start, index))
            start, used = index, 0
        used += cost
    if costs:
        runs.append(range(start, len(costs)))
    return runs


def _within(size: int, max_tokens: int | None) -> int:
    return size if max_tokens is None else min(size, max_tokens * _BYTES_PER_TOKEN)
