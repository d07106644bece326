"""A pool of pairs in, PairScores out: equal pairs once, tokenising ahead of scoring.

It does not know how pairs are tokenised or scored; both are handed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np

from rerank_core.scorers.runner import BatchRunner
from rerank_core.types import PairScores, QueryDocumentPair


class Encoded(Protocol):
    """A pair as the model takes it; its `len` is the tokens that the model reads."""

    @property
    def truncated(self) -> bool:
        """Whether the model does not see the whole pair."""
        ...

    def __len__(self) -> int: ...


Item = TypeVar("Item", bound=Encoded)
Encode = Callable[[Sequence[QueryDocumentPair]], tuple[list[Item | None], dict[int, str]]]

# Chunks that are tokenised while one is scored; more only costs memory.
_AHEAD = 2


def score_pool(
    pairs: Sequence[QueryDocumentPair],
    encode: Encode[Item],
    runner: BatchRunner[Item],
    chunk_characters: int | None = None,
) -> PairScores:
    """Score every pair, in input order.

    With `chunk_characters` a large pool is sorted by characters and cut into chunks of about that
    size, and a thread tokenises the next ones while one is scored; without, it is one chunk, sorted
    by tokens throughout.
    """
    places: dict[QueryDocumentPair, int] = {}
    index = [places.setdefault(pair, len(places)) for pair in pairs]
    distinct = list(places)
    raw = np.full(len(distinct), np.nan, dtype=np.float32)
    tokens = np.zeros(len(distinct), dtype=np.int32)
    truncated = np.zeros(len(distinct), dtype=np.bool_)
    errors: dict[int, str] = {}
    for chunk, (items, unread) in _encoded_chunks(distinct, encode, chunk_characters):
        ready = [
            (place, item) for place, item in zip(chunk, items, strict=True) if item is not None
        ]
        where = [place for place, _ in ready]
        scores, failed = runner.run([item for _, item in ready])
        raw[where] = scores
        tokens[where] = [len(item) for _, item in ready]
        truncated[where] = [item.truncated for _, item in ready]
        errors |= {chunk[i]: reason for i, reason in unread.items()}
        errors |= {where[i]: reason for i, reason in failed.items()}
    return PairScores(raw, tokens, truncated, errors).take(index)


def _encoded_chunks(
    pairs: Sequence[QueryDocumentPair], encode: Encode[Item], chunk_characters: int | None
) -> Iterator[tuple[Sequence[int], tuple[list[Item | None], dict[int, str]]]]:
    chunks = _chunks(pairs, chunk_characters)
    if len(chunks) == 1:
        yield chunks[0], encode([pairs[i] for i in chunks[0]])
        return
    with ThreadPoolExecutor(1, "tokenise") as thread:
        waiting: deque[tuple[Sequence[int], Future[tuple[list[Item | None], dict[int, str]]]]]
        waiting = deque()
        for chunk in chunks:
            waiting.append((chunk, thread.submit(encode, [pairs[i] for i in chunk])))
            if len(waiting) > _AHEAD:
                places, encoded = waiting.popleft()
                yield places, encoded.result()
        while waiting:
            places, encoded = waiting.popleft()
            yield places, encoded.result()


def _chunks(
    pairs: Sequence[QueryDocumentPair], chunk_characters: int | None
) -> list[Sequence[int]]:
    sizes = [len(query) + len(document) for query, document in pairs]
    if not chunk_characters or sum(sizes) <= chunk_characters:
        return [range(len(pairs))]
    chunks: list[Sequence[int]] = []
    chunk: list[int] = []
    room = chunk_characters
    for i in sorted(range(len(pairs)), key=lambda i: -sizes[i]):
        if chunk and sizes[i] > room:
            chunks.append(chunk)
            chunk, room = [], chunk_characters
        chunk.append(i)
        room -= sizes[i]
    return [*chunks, chunk]
