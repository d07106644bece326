"""Ranks the queries of one bucket over all units. Pure: arrays in, arrays out."""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.ranks.moves import InputOrder, Ints, moves, over_units
from pipelines.ranks.rows import RANKED, Rows, in_parts, numbered
from pipelines.ranks.within_unit import ranks_within

# New ranks that are none: beyond top_k, and the same document of the same query again.
CUT, COPY = 0, -1
# Rows that one task gathers, sorts or scatters at least: about 400 MB at its peak.
_TASK_ROWS = 4_000_000
# So many times the root of all rows, where that is more: groups times buckets, and so the reads
# between them, grow with the rows and not with their square. 12 million at 1e9, 40 million at 1e10.
_TIMES_ROOT = 400


def task_rows(rows: int) -> int:
    """Return how many rows one task has in hand where so many are ranked over units."""
    return max(_TASK_ROWS, _TIMES_ROOT * isqrt(rows))


def bucket_count(pairs: int) -> int:
    """Return into how many buckets the job's pairs are cut."""
    return max(1, -(-pairs // task_rows(pairs)))


def by_bucket(rows: Rows, buckets: int) -> tuple[bytes, list[int]]:
    """Return the rows as a file in parts, one for each bucket; rows of one hash share a bucket."""
    return in_parts(rows, np.asarray(rows["high"] % np.uint64(buckets), np.int64), buckets)


def rank_bucket(
    rows: Rows, top_k: int | None, first_new: int = 0
) -> tuple[Rows, dict[str, list[int]]]:
    """Return new ranks for the queries that occur in several units; for all, if copies matter.

    Takes scored rows with their unit, units in plan order. Queries that occur only in units before
    `first_new` have their ranks already. Returns how far all ranks lie from the input's order, too.
    """
    with_copies = "doc_high" in (rows.dtype.names or ())
    if not len(rows):
        return np.zeros(0, RANKED), {}
    groups = numbered(rows["high"], rows["low"])
    first, last = _ends(groups, rows["unit"])
    shared = first != last
    kept = np.full(len(groups), True)
    if with_copies:
        shared |= top_k is not None  # it has not cut the units of such a job
        kept = _first_of_each(groups, numbered(rows["doc_high"], rows["doc_low"]))
    shared = (shared & (last >= first_new))[groups]
    ranks = np.full(len(rows), COPY)
    ranks[kept] = ranks_within(groups[kept], rows["raw"][kept])
    if top_k:
        ranks[ranks > top_k] = CUT
    place = over_units(groups, rows["unit"], InputOrder(rows["order"], rows["of"]))
    there = ranks > 0
    moved = moves(place[there], ranks[there], rows["raw"][there])
    ranked = np.zeros(int(shared.sum()), RANKED)
    ranked["unit"], ranked["place"] = rows["unit"][shared], rows["place"][shared]
    ranked["rank"] = ranks[shared]
    return ranked, moved


def _first_of_each(groups: Ints, documents: Ints) -> npt.NDArray[np.bool_]:
    """Say of each entry whether it is the first with its group and document."""
    order = np.lexsort((documents, groups))  # stable: the earlier comes first
    same = (np.diff(groups[order]) == 0) & (np.diff(documents[order]) == 0)
    first = np.full(len(groups), True)
    first[order[1:][same]] = False
    return first


def copies_among(rows: Rows) -> int:
    """Return how many of these rows are a document that its query has had before."""
    queries = numbered(rows["high"], rows["low"])
    documents = numbered(rows["doc_high"], rows["doc_low"])
    return int((~_first_of_each(queries, documents)).sum())


def _ends(groups: Ints, unit: Ints) -> tuple[Ints, Ints]:
    """Return the first and the last unit of each group's entries."""
    count = int(groups.max()) + 1
    first = np.full(count, np.iinfo(np.int64).max)
    last = np.full(count, -1)
    np.minimum.at(first, groups, unit)
    np.maximum.at(last, groups, unit)
    return first, last


def copies_in(ranked: Rows) -> list[int]:
    """Return the places of a unit that are copies of a row before them."""
    return sorted(ranked["place"][ranked["rank"] == COPY].tolist())


def apply_ranks(table: pa.Table, column: str, ranked: Rows) -> pa.Table:
    """Return the unit's rows with their new ranks; rows without one are dropped."""
    ranks: Any = table[column].to_numpy().copy()
    ranks[ranked["place"]] = ranked["rank"]
    index = table.schema.get_field_index(column)
    out = table.set_column(index, table.schema.field(index), pa.array(ranks, pa.int32()))
    return out.filter(pa.array(ranks > 0))
