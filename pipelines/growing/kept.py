"""Scores that are kept for later jobs: by a hash of the two texts, in the order of the pairs.

A score depends on the texts and the scorer alone, so ids take no part. It does not know where kept
scores come from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.commits.records import JobFolder, scratch_key
from pipelines.ranks.moves import Ints
from pipelines.ranks.rows import Rows, read_rows
from rerank_core import PairScores, QueryDocumentPair, ScorerConfig

# What two texts are known by, and a pair of a unit that has none of its own yet.
_HASH = [("high", "<u8"), ("low", "<u8")]
WANTED = np.dtype([*_HASH, ("unit", "<i4")])
_PLAIN = np.dtype([*_HASH, ("raw", "<f4"), ("tokens", "<i4"), ("truncated", "?")])
_WITH_PASSAGE = np.dtype([*_PLAIN.descr, ("start", "<i4"), ("end", "<i4")])

Score = Callable[[Sequence[QueryDocumentPair]], PairScores]


class Scored(NamedTuple):
    """The scores of pairs, how many of these were known before, and what is kept of them."""

    scores: PairScores
    reused: int
    kept: bytes | None


@dataclass(frozen=True, slots=True)
class Known:
    """Where the scores lie that a unit takes over: by group of units, the first unit's number."""

    groups: tuple[tuple[int, str, list[int]], ...] = ()

    def of_unit(self, folder: JobFolder, index: int, kind: np.dtype[Any]) -> Rows | None:
        """Return the known scores of a unit's pairs, None where none is looked for."""
        for first, file, ends in self.groups:
            if first <= index < first + len(ends) - 1:
                bounds = ends[index - first], ends[index - first + 1]
                return read_rows(folder.store, scratch_key(file), bounds, kind)
        return None


NONE_KNOWN = Known()


def kept_kind(scorer: ScorerConfig) -> np.dtype[Any]:
    """Return the type of one kept score: 25 bytes, 33 where long documents are split."""
    return _WITH_PASSAGE if scorer.long_documents == "split" else _PLAIN


def hashes_of(pairs: Sequence[QueryDocumentPair]) -> npt.NDArray[np.uint64]:
    """Return two numbers for each pair, the same wherever its texts are met."""
    return np.frombuffer(b"".join(_digests(pairs)), "<u8").reshape(-1, 2)


def _digests(pairs: Sequence[QueryDocumentPair]) -> Iterator[bytes]:
    query, begun = None, hashlib.blake2b(digest_size=16)
    for pair in pairs:
        if pair.query != query:
            query = pair.query
            text = query.encode("utf-8", "surrogatepass")
            # Its length first: no other cut between the two texts gives the same bytes.
            begun = hashlib.blake2b(len(text).to_bytes(8, "little") + text, digest_size=16)
        whole = begun.copy()
        whole.update(pair.document.encode("utf-8", "surrogatepass"))
        yield whole.digest()


def found_in(known: Rows, wanted: Rows) -> Ints:
    """Return where each wanted hash is among the known ones, which are sorted; -1 for nowhere."""
    places = np.searchsorted(known["high"], wanted["high"])
    found = np.full(len(wanted), -1)
    left = np.flatnonzero(places < len(known))
    while len(left):
        at = places[left]
        same = known["high"][at] == wanted["high"][left]
        hit = same & (known["low"][at] == wanted["low"][left])
        found[left[hit]] = at[hit]
        left = left[same & ~hit]
        places[left] += 1
        left = left[places[left] < len(known)]
    return found


def by_hash(rows: Rows) -> Rows:
    """Return the rows sorted as `found_in` takes them; of equal ones the first stays first."""
    return rows[np.lexsort((rows["low"], rows["high"]))]


def score_unknown(
    score: Score, pairs: Sequence[QueryDocumentPair], known: Rows | None, kind: np.dtype[Any]
) -> Scored:
    """Score the different pairs that are not known, and give its score to each pair.

    `known` are scores of the type `kind`, which is also that of those that are to be kept.
    """
    places: dict[QueryDocumentPair, int] = {}
    index = [places.setdefault(pair, len(places)) for pair in pairs]
    distinct = list(places)
    rows = np.zeros(len(distinct), kind)
    if distinct:
        rows["high"], rows["low"] = hashes_of(distinct).T
    known = by_hash(np.zeros(0, kind) if known is None else known)
    found = found_in(known, rows)
    there, missing = np.flatnonzero(found >= 0), np.flatnonzero(found < 0)
    rows[there] = known[found[there]]
    new = score([distinct[place] for place in missing]) if len(missing) else PairScores.none()
    scores = PairScores.concat([new, _as_scores(rows[there], new.fingerprint)])
    order = np.argsort(np.concatenate([missing, there]), kind="stable")
    scores = scores.take(order)
    reused = int((found[index] >= 0).sum()) if index else 0
    return Scored(scores.take(index), reused, _kept(rows, scores))


def _as_scores(rows: Rows, fingerprint: str | None) -> PairScores:
    passages = {}
    if "start" in (rows.dtype.names or ()):
        split = np.flatnonzero(rows["start"] >= 0).tolist()
        passages = {n: (int(rows["start"][n]), int(rows["end"][n])) for n in split}
    columns = (rows["raw"].copy(), rows["tokens"].copy(), rows["truncated"].copy())
    return PairScores(*columns, passages=passages, fingerprint=fingerprint)


def _kept(rows: Rows, scores: PairScores) -> bytes:
    rows["raw"], rows["tokens"], rows["truncated"] = scores.raw, scores.tokens, scores.truncated
    if "start" in (rows.dtype.names or ()):
        rows["start"] = -1
        for place, span in scores.passages.items():
            rows["start"][place], rows["end"][place] = span
    return rows[np.isfinite(scores.raw)].tobytes()
