"""A pool of pairs in, PairScores out: equal pairs once, tokenising ahead of scoring.

It does not know how pairs are tokenised or scored; both are handed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from rerank_core.batching import together
from rerank_core.documents import merge_passages
from rerank_core.scorers.encoder import PreparedPair, items_of
from rerank_core.types import Float32s, PairScores, QueryDocumentPair

Encode = Callable[[Sequence[QueryDocumentPair]], Sequence[PreparedPair]]

# Chunks that are tokenised while one is scored; more only costs memory.
_AHEAD = 2

# Scores items: one logit each, in order, NaN exactly where there is a reason.
Run = Callable[[Sequence[Any]], tuple[Float32s, dict[int, str]]]


def score_pool(
    pairs: Sequence[QueryDocumentPair],
    encode: Encode,
    run: Run,
    chunk_characters: int | None = None,
    *,
    by_query: bool = False,
    passage_score: str = "max",
) -> PairScores:
    """Score every pair, in input order.

    With `chunk_characters` a large pool is sorted by characters (a query's pairs together where
    `by_query`) and cut into chunks of about that size, and a thread tokenises the next ones while
    one is scored; without, it is one chunk, sorted by tokens throughout.
    """
    keys = [pair_key(pair) for pair in pairs]
    unique = dict(zip(keys, pairs, strict=True))
    distinct, places = list(unique.values()), {key: place for place, key in enumerate(unique)}
    parts: list[PairScores] = []
    order: list[int] = []
    chunks = _chunks(distinct, chunk_characters, by_query)
    for chunk, prepared in _prepared_chunks(distinct, encode, chunks):
        parts.append(score_prepared(prepared, run, passage_score))
        order += chunk
    # Where each distinct pair came to stand.
    back = np.argsort(order)
    return PairScores.concat(parts).take([back[places[key]] for key in keys])


def pair_key(pair: QueryDocumentPair) -> tuple[Any, ...]:
    """Return all that changes a pair's score: not which query of the caller it belongs to."""
    return (pair.query, pair.document, pair.max_query_tokens, pair.max_document_tokens,
            pair.instruction, pair.max_tokens)  # fmt: skip


def score_prepared(
    prepared: Sequence[PreparedPair], run: Run, passage_score: str = "max"
) -> PairScores:
    """Score prepared pairs of any number of callers together, in input order, the same one once."""
    places = {one: place for place, one in enumerate(dict.fromkeys(prepared))}
    items = items_of(places)
    owners = [place for one, place in places.items() for _ in one.items]
    raw, failed = run(items)
    tokens = np.fromiter(map(len, items), np.int32, len(items))
    truncated = np.fromiter((item.truncated for item in items), np.bool_, len(items))
    scores = PairScores(raw, tokens, truncated, failed)
    passages = {place: one.passages for one, place in places.items() if one.passages}
    if passages:
        unread = {place for one, place in places.items() if one.unread}
        scores, owners = merge_passages(scores, owners, passages, unread, passage_score)
    # At their pairs' places; the others have no score, and a reason.
    raw = np.full(len(places), np.nan, dtype=np.float32)
    tokens = np.zeros(len(places), dtype=np.int32)
    truncated = np.zeros(len(places), dtype=np.bool_)
    raw[owners], tokens[owners], truncated[owners] = scores.raw, scores.tokens, scores.truncated
    errors = {place: one.error for one, place in places.items() if one.error is not None}
    errors |= {owners[i]: why for i, why in scores.errors.items()}
    spans = {owners[i]: span for i, span in scores.passages.items()}
    found = PairScores(raw, tokens, truncated, errors, spans)
    return found.take([places[one] for one in prepared])


def _prepared_chunks(
    pairs: Sequence[QueryDocumentPair], encode: Encode, chunks: list[Sequence[int]]
) -> Iterator[tuple[Sequence[int], Sequence[PreparedPair]]]:
    if len(chunks) == 1:
        yield chunks[0], encode([pairs[i] for i in chunks[0]])
        return
    with ThreadPoolExecutor(1, "tokenise") as thread:
        waiting: deque[tuple[Sequence[int], Future[Sequence[PreparedPair]]]] = deque()
        for chunk in [*chunks, *[None] * _AHEAD]:
            if chunk is not None:
                waiting.append((chunk, thread.submit(encode, [pairs[i] for i in chunk])))
            if waiting and (chunk is None or len(waiting) > _AHEAD):
                places, prepared = waiting.popleft()
                yield places, prepared.result()


def _chunks(
    pairs: Sequence[QueryDocumentPair], chunk_characters: int | None, by_query: bool
) -> list[Sequence[int]]:
    sizes = [len(query) + len(document) for query, document in pairs]
    if not chunk_characters or sum(sizes) <= chunk_characters:
        return [range(len(pairs))]
    chunks: list[Sequence[int]] = []
    chunk: list[int] = []
    room = chunk_characters
    order = sorted(range(len(pairs)), key=lambda i: -sizes[i])
    if by_query:
        order = together(order, lambda i: pairs[i].query)
    for i in order:
        if chunk and sizes[i] > room:
            chunks.append(chunk)
            chunk, room = [], chunk_characters
        chunk.append(i)
        room -= sizes[i]
    return [*chunks, chunk]
