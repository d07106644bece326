"""A small scorer keeps the best candidates of each query, a large one scores only those."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rerank_core.types import Float32s, LoadedScorer, PairScores, QueryDocumentPair, ScorerInfo


class CascadeScorer:
    """Per query, the `keep` best pairs by `small` get the scores of `large`.

    The others are placed below all of them, in `small`'s order: their scores say nothing more.
    A query here is all pairs of one call with the same `query_id`, or the same text without one.
    """

    def __init__(self, small: LoadedScorer, large: LoadedScorer, keep: int) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}")
        self._small = small
        self._large = large
        self._keep = keep

    @property
    def info(self) -> ScorerInfo:
        """What was loaded: the large model."""
        return self._large.info

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        """Score every pair, in input order. Tokens count what both models read.

        `first_stage_only` has the pairs that the large model did not see.
        """
        queries: dict[tuple[str | None, str], list[int]] = {}
        for index, pair in enumerate(pairs):
            queries.setdefault(_query_of(pair), []).append(index)
        asked = [i for places in queries.values() if len(places) > self._keep for i in places]
        first = self._small.score([pairs[i] for i in asked])
        # What the small model fails on is for the large one to judge.
        early = dict.fromkeys(range(len(pairs)), np.inf)
        early |= {i: np.inf if j in first.errors else float(first.raw[j])
                  for j, i in enumerate(asked)}  # fmt: skip
        chosen = [self._choose(places, early) for places in queries.values()]
        kept = [i for best, _ in chosen for i in best]
        second = self._large.score([pairs[i] for i in kept])
        raw = np.full(len(pairs), np.nan, dtype=np.float32)
        tokens = np.zeros(len(pairs), dtype=np.int32)
        truncated = np.zeros(len(pairs), dtype=np.bool_)
        tokens[asked] += first.tokens
        truncated[asked] = first.truncated
        raw[kept] = second.raw
        tokens[kept] += second.tokens
        truncated[kept] = second.truncated
        for best, rest in chosen:
            _place_below(raw, best, rest, early)
        return PairScores(
            raw,
            tokens,
            truncated,
            {kept[j]: reason for j, reason in second.errors.items()},
            {kept[j]: span for j, span in second.passages.items()},
            frozenset(i for _, rest in chosen for i in rest),
            self.info.fingerprint,
        )

    def warm_up(self) -> None:
        """Warm both models."""
        self._small.warm_up()
        self._large.warm_up()

    def _choose(
        self, places: Sequence[int], early: dict[int, float]
    ) -> tuple[list[int], list[int]]:
        """Part one query's pairs into those for the large model and the others, best first."""
        order = sorted(places, key=lambda i: -early[i])
        keep = max(self._keep, sum(early[i] == np.inf for i in places))
        return order[:keep], order[keep:]


def _query_of(pair: QueryDocumentPair) -> tuple[str | None, str]:
    return (None, pair.question) if pair.query_id is None else (pair.query_id, "")


def _place_below(
    raw: Float32s, best: Sequence[int], rest: Sequence[int], early: dict[int, float]
) -> None:
    """Give the rest scores under the lowest of the best, with the small model's distances."""
    scored = raw[list(best)]
    finite = scored[np.isfinite(scored)]
    floor = float(finite.min()) if len(finite) else 0.0
    for i in rest:
        raw[i] = floor - 1.0 - (early[rest[0]] - early[i])
