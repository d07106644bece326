"""Ranks of whole tables of pairs, as a stage of a pipeline has them. Pure; texts pass through."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import StageConfig
from pipelines.inputs.ids import Column, plain_ids
from pipelines.inputs.pairs import one_list
from pipelines.ranks.moves import Ints
from pipelines.ranks.within_unit import query_codes, ranks_within
from rerank_core import ModelUnavailable

# What a table of pairs has between scoring and ranking.
RAW, BUCKET, FINGERPRINT = "__rerank_raw", "__rerank_bucket", "__rerank_fingerprint"
# Into so many parts Ray Data gathers queries; one part is ranked at once.
BUCKETS = 4096


def rank_pairs(table: pa.Table, config: StageConfig, *, gathered: bool = False) -> pa.Table:
    """Return what `scored` gave with ranks, cut to `top_k`; all of a query's rows are there.

    Rows keep their order, and equal scores rank by it. Where rows were `gathered` they have none:
    they come out query by query, best first, bad ones last; equal scores rank by document id.
    Raises ModelUnavailable for scores of two fingerprints.
    """
    if not table.num_columns:
        return table
    names = config.names
    name = config.fingerprint_column or FINGERPRINT
    prints = sorted({str(value) for value in table[name].cast(pa.string()).unique().to_pylist()})
    if len(prints) > 1:
        raise ModelUnavailable(
            f"scores of {len(prints)} models cannot be ranked together: the machines have the"
            f" fingerprints {', '.join(prints)}; stage the same files on every one"
        )
    raw = one_list(table[RAW])
    known = np.flatnonzero(table[names.query_id].is_valid())
    codes = np.full(table.num_rows, len(known), np.int64)
    codes[known] = query_codes(table[names.query_id], known)[0]
    first = np.arange(table.num_rows)
    if gathered:
        first = pc.sort_indices(plain_ids(table[names.doc_id]).combine_chunks()).to_numpy()
    ranks = ranks_of(codes, raw, first.astype(np.int64))
    kept = within(ranks, config.top_k)
    if gathered:
        kept = kept[np.lexsort((unranked_last(ranks[kept]), codes[kept]))]
    out = table.drop_columns([RAW, BUCKET, *([FINGERPRINT] if name == FINGERPRINT else [])])
    place = out.schema.get_field_index(names.score) + 1
    out = out.add_column(place, names.rank, rank_column(ranks)).take(kept)
    return stamped(out, prints[0]) if prints else out


def ranks_of(groups: Ints, raw: Column, first: Ints) -> Ints:
    """Return the rank of each score in its group, 0 for none; `first` says who wins a tie."""
    values = raw.to_numpy(zero_copy_only=False)
    order = first[np.isfinite(values[first])]
    ranks = np.zeros(len(values), np.int64)
    ranks[order] = ranks_within(groups[order], values[order])
    return ranks


def within(ranks: Ints, top_k: int | None) -> Ints:
    """Return the places of what stays: ranks up to `top_k`, and what has none."""
    return np.flatnonzero(ranks <= top_k) if top_k else np.arange(len(ranks))


def unranked_last(ranks: Ints) -> Ints:
    """Return the ranks such that those without one come last."""
    return np.where(ranks == 0, np.iinfo(np.int64).max, ranks)


def rank_column(ranks: Ints) -> Column:
    """Return the ranks as a column, null for those without one."""
    return pa.array(ranks.astype(np.int32), mask=ranks == 0)


def stamped(table: pa.Table, fingerprint: str) -> pa.Table:
    """Return the table with the scorer's fingerprint in its schema's metadata."""
    metadata = {**(table.schema.metadata or {}), b"score_fingerprint": fingerprint.encode()}
    return table.replace_schema_metadata(metadata)
