"""A bounded memory of scores in front of a scorer. It does not know what is scored, or how."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from rerank_core.types import LoadedScorer, PairScores, QueryDocumentPair, ScorerInfo

_Entry = tuple[float, int, bool, tuple[int, int] | None]


class CachedScorer:
    """Scores each pair once and remembers the last `max_pairs` of them, least used out first.

    Keys are hashes of the scorer's fingerprint and the pair, so no text is kept. Failures are not
    remembered: a pair that failed is tried again.
    """

    def __init__(self, scorer: LoadedScorer, max_pairs: int) -> None:
        if max_pairs < 1:
            raise ValueError(f"max_pairs must be at least 1, not {max_pairs}")
        self._scorer = scorer
        self._max_pairs = max_pairs
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self.hits = 0
        self.misses = 0

    @property
    def info(self) -> ScorerInfo:
        """What was loaded."""
        return self._scorer.info

    def __len__(self) -> int:
        return len(self._entries)

    def score(self, pairs: Sequence[QueryDocumentPair]) -> PairScores:
        """Score every pair, in input order, asking the scorer only for unknown ones."""
        keys = [self._key(pair) for pair in pairs]
        known: dict[bytes, _Entry] = {}
        unknown: dict[bytes, QueryDocumentPair] = {}
        for key, pair in zip(keys, pairs, strict=True):
            if key in self._entries:
                self._entries.move_to_end(key)
                known[key] = self._entries[key]
            else:
                unknown[key] = pair
        # A pair that stands twice in one call is scored once, but was not remembered.
        self.hits += sum(key not in unknown for key in keys)
        self.misses += len(unknown)
        fresh = self._scorer.score(list(unknown.values()))
        failed: dict[bytes, str] = {}
        for i, key in enumerate(unknown):
            if i in fresh.errors:
                failed[key] = fresh.errors[i]
            known[key] = (
                float(fresh.raw[i]),
                int(fresh.tokens[i]),
                bool(fresh.truncated[i]),
                fresh.passages.get(i),
            )
            if i not in fresh.errors:
                self._remember(key, known[key])
        return _assemble([known[key] for key in keys], keys, failed).stamped(self.info.fingerprint)

    def warm_up(self) -> None:
        """Warm the scorer below."""
        self._scorer.warm_up()

    def _key(self, pair: QueryDocumentPair) -> bytes:
        digest = hashlib.blake2b(self.info.fingerprint.encode(), digest_size=16)
        texts = (pair.instruction or "", pair.query, pair.document)
        lengths = f"{len(texts[0])},{len(texts[1])}"
        limits = f"{pair.max_query_tokens},{pair.max_document_tokens},{pair.max_tokens},{lengths};"
        digest.update(limits.encode())
        digest.update("".join(texts).encode("utf-8", "surrogatepass"))
        return digest.digest()

    def _remember(self, key: bytes, entry: _Entry) -> None:
        self._entries[key] = entry
        while len(self._entries) > self._max_pairs:
            self._entries.popitem(last=False)


def _assemble(
    entries: Sequence[_Entry], keys: Sequence[bytes], failed: dict[bytes, str]
) -> PairScores:
    return PairScores(
        np.array([entry[0] for entry in entries], dtype=np.float32),
        np.array([entry[1] for entry in entries], dtype=np.int32),
        np.array([entry[2] for entry in entries], dtype=np.bool_),
        {i: failed[key] for i, key in enumerate(keys) if key in failed},
        {i: entry[3] for i, entry in enumerate(entries) if entry[3] is not None},
    )
