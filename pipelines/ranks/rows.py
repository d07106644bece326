"""The rows that ranking over units passes on: scores without texts, and files of them in parts.

A file in parts is one run of rows sorted by part; its record says where each part starts, so that
any part costs one read. It knows bytes and arrays, and neither records nor what a rank is.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.commits.store import Store
from pipelines.ranks.moves import InputOrder, Ints, over_units
from rerank_core.types import Float32s

Rows = npt.NDArray[Any]  # structured, of one of the types below

# One row of a unit's result: its query's hash, its score, which row it is, its place among those of
# its query in the unit's input, and how many these were.
SCORED = np.dtype(
    [
        *[(name, "<u8") for name in ("high", "low")],
        ("raw", "<f4"),
        *[(name, "<i4") for name in ("place", "order", "of")],
    ]
)
_DOCUMENT = [("doc_high", "<u8"), ("doc_low", "<u8"), ("row", "<i8")]
SCORED_WITH_DOCUMENT = np.dtype([*SCORED.descr, *_DOCUMENT])
# The new rank of a row; `unit` is the unit's place in the plan.
RANKED = np.dtype([("unit", "<i4"), ("place", "<i4"), ("rank", "<i4")])


class Copies(NamedTuple):
    """What finding a query's documents that come twice needs: ids, and rows of the input file."""

    ids: Sequence[Any]
    row: Ints


def scored_kind(with_documents: bool) -> np.dtype[Any]:
    """Return the type of a unit's rows; documents are needed where copies are looked for."""
    return SCORED_WITH_DOCUMENT if with_documents else SCORED


def with_unit(kind: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of a unit's rows once they lie among those of others."""
    return np.dtype([*kind.descr, ("unit", "<i4")])


def as_kind(rows: Rows, kind: np.dtype[Any]) -> Rows:
    """Return the same rows with the columns of another type; 0 where they have none so named."""
    made = np.zeros(len(rows), kind)
    for name in set(kind.names or ()) & set(rows.dtype.names or ()):
        made[name] = rows[name]
    return made


def scored_rows(
    query: Ints,
    queries: Sequence[Any],
    raw: Float32s,
    order: InputOrder,
    copies: Copies | None = None,
) -> Rows:
    """Return a unit's rows in their order; `query` has an index into `queries` for each."""
    rows = np.zeros(len(raw), SCORED_WITH_DOCUMENT if copies else SCORED)
    of_queries = hashes(queries)
    rows["high"], rows["low"] = of_queries[query, 0], of_queries[query, 1]
    rows["raw"], rows["place"] = raw, np.arange(len(raw))
    rows["order"], rows["of"] = order
    if copies:
        # A document without an id is nobody's copy.
        keys = [secrets.token_bytes(16) if key is None else key for key in copies.ids]
        documents = hashes(keys)
        rows["doc_high"], rows["doc_low"], rows["row"] = *documents.T, copies.row
    return rows


def hashes(values: Sequence[Any]) -> npt.NDArray[np.uint64]:
    """Return two numbers for each value, the same wherever the value is met."""
    digests = [
        hashlib.blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for value in values
    ]
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)


def in_parts(rows: Rows, part: Ints, parts: int) -> tuple[bytes, list[int]]:
    """Return the rows one part after the other, and where each starts and the last one ends.

    Inside a part they keep their order; places are in bytes.
    """
    order = np.argsort(part, kind="stable")
    ends = np.searchsorted(part[order], np.arange(parts + 1)) * rows.dtype.itemsize
    return rows[order].tobytes(), ends.tolist()


def read_rows(store: Store, key: str, bounds: tuple[int, int], kind: np.dtype[Any]) -> Rows:
    """Return the rows that lie between two bytes of a file."""
    start, stop = bounds
    rows = np.frombuffer(store.read_part(key, start, stop), kind)
    if rows.nbytes != stop - start:
        raise OSError(f"{key} is shorter than it was written")
    return rows


def numbered(high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> Ints:
    """Number the distinct (high, low) keys."""
    order = np.lexsort((low, high))
    new = np.r_[False, (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])]
    groups = np.empty(len(high), dtype=np.int64)
    groups[order] = np.cumsum(new)[: len(high)]
    return groups


def placed(scored: Rows, gone: Ints, rows: int, start: int) -> Rows:
    """Return the scores of a unit of `rows` rows, their places those in a larger file.

    There the unit's rows begin at `start`, without those that are `gone`; these have the place -1
    and still count where other rows are ranked with them.
    """
    there = np.full(rows + 1, True)
    there[np.r_[gone, rows]] = False  # the last is for scores that have had no row before
    places = np.where(there, np.cumsum(there) - 1 + start, -1)
    moved = scored.copy()
    moved["place"] = places[scored["place"]]
    return moved


def of_one_file(units: Sequence[Rows]) -> Rows:
    """Return the scores of the units of one file as those of one unit; places stay as they are."""
    rows = np.concatenate(units)
    if not len(rows):
        return rows
    unit = np.repeat(np.arange(len(units)), [len(part) for part in units])
    groups = numbered(rows["high"], rows["low"])
    order = over_units(groups, unit, InputOrder(rows["order"], rows["of"]))
    first = np.unique(groups * len(units) + unit, return_index=True)[1]
    rows["of"] = np.bincount(groups[first], rows["of"][first])[groups]
    rows["order"] = order
    return rows
