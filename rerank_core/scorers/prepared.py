"""Pairs whose texts are ids already, so that the scoring thread only packs and launches.

It does not know how pairs are tokenised or scored; both are handed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rerank_core.documents import Passage
from rerank_core.scorers.encoder import Encoded, TokenizedPair
from rerank_core.scorers.pipeline import Encode, Run, pair_key, score_chunk
from rerank_core.types import PairScores, QueryDocumentPair


@dataclass(frozen=True, slots=True, eq=False)
class PreparedPair:
    """What tokenising made of a pair: its items, several for `passages`, or why there are none.

    `unread`: even the passages leave something out.
    """

    items: list[TokenizedPair]
    error: str | None
    passages: list[Passage] | None
    unread: bool


def prepare_pairs(pairs: Sequence[QueryDocumentPair], encode: Encode) -> list[PreparedPair]:
    """Return one for each pair, in order; equal pairs share theirs and are scored once."""
    distinct = {pair_key(pair): pair for pair in pairs}
    encoded = encode(list(distinct.values()))
    items: list[list[TokenizedPair]] = [[] for _ in distinct]
    for owner, item in zip(encoded.owners, encoded.items, strict=True):
        items[owner].append(item)
    prepared = {
        key: PreparedPair(
            items[place],
            encoded.errors.get(place),
            encoded.passages.get(place),
            place in encoded.unread,
        )
        for place, key in enumerate(distinct)
    }
    return [prepared[pair_key(pair)] for pair in pairs]


def run_prepared(prepared: Sequence[PreparedPair], run: Run, encoded: Encoded) -> PairScores:
    """Score prepared pairs of any number of callers together, in input order.

    `encoded` has no items yet; it is the encoder's, which knows how passages' scores are joined.
    """
    places: dict[int, int] = {}
    distinct: list[PreparedPair] = []
    for one in prepared:
        if places.setdefault(id(one), len(distinct)) == len(distinct):
            distinct.append(one)
    for place, one in enumerate(distinct):
        encoded.items += one.items
        encoded.owners += [place] * len(one.items)
        if one.error is not None:
            encoded.errors[place] = one.error
        if one.passages is not None:
            encoded.passages[place] = one.passages
        if one.unread:
            encoded.unread.add(place)
    index = np.array([places[id(one)] for one in prepared], dtype=np.int64)
    return score_chunk(len(distinct), encoded, run).take(index)
