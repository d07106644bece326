"""Ranks of queries whose candidates lie in several units: a merge over scores alone.

A scored unit leaves a sidecar of (query hash, raw score, place), cut into buckets by hash; a bucket
of all units is ranked in one task, so no task ever holds a query's texts, and a query with millions
of candidates costs 28 bytes for each. It knows bytes and arrays, and no records.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.ranks.within_unit import Ints, ranks_within
from rerank_core.types import Float32s

# Sidecar rows that one merge task sorts: about 200 MB at its peak.
BUCKET_ROWS = 2_000_000
_SIDECAR_TYPES: dict[str, pa.DataType] = {
    "high": pa.uint64(),
    "low": pa.uint64(),
    "raw": pa.float32(),
    "place": pa.int32(),
}
_SIDECAR = pa.schema(_SIDECAR_TYPES)
_COPY_TYPES: dict[str, pa.DataType] = {
    "doc_high": pa.uint64(),
    "doc_low": pa.uint64(),
    "row": pa.int64(),
}
# In merged ranks: beyond top_k, and the same document of the same query again.
_CUT, _COPY = 0, -1
_RANKS = pa.schema({"place": pa.int32(), "rank": pa.int32()})


class Copies(NamedTuple):
    """What finding a query's documents that come twice needs: ids, and rows of the input file."""

    ids: Sequence[Any]
    row: Ints


def bucket_count(pairs: int) -> int:
    """Return into how many buckets the job's pairs are cut."""
    return max(1, -(-pairs // BUCKET_ROWS))


def sidecar(
    query: Ints,
    queries: Sequence[Any],
    raw: Float32s,
    buckets: int,
    copies: Copies | None = None,
) -> bytes:
    """Return the sidecar of one unit: one record batch per bucket, in order."""
    hashes = np.array([_hash(value) for value in queries], dtype=np.uint64).reshape(-1, 2)
    high, low = hashes[query, 0], hashes[query, 1]
    bucket = high % np.uint64(buckets)
    columns: list[Any] = [high, low, raw, np.arange(len(raw), dtype=np.int32)]
    schema = _SIDECAR
    if copies:
        # A document without an id is nobody's copy.
        keys = [secrets.token_bytes(16) if key is None else key for key in copies.ids]
        documents = np.array([_hash(key) for key in keys], dtype=np.uint64).reshape(-1, 2)
        columns += [documents[:, 0], documents[:, 1], copies.row]
        schema = pa.schema(_SIDECAR_TYPES | _COPY_TYPES)
    places = (np.flatnonzero(bucket == number) for number in range(buckets))
    batches = (
        pa.record_batch([pa.array(column[place]) for column in columns], schema=schema)
        for place in places
    )
    return _as_bytes(batches, schema)


def _hash(value: Any) -> tuple[int, int]:
    digest = hashlib.blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def merge_bucket(
    files: Sequence[Path], bucket: int, top_k: int | None
) -> tuple[bytes | None, list[int]]:
    """Rank the queries of one bucket that occur in several files; all, if copies matter.

    Takes the sidecars in plan order. Returns the new ranks (one record batch of place and rank per
    touched file; 0 means beyond `top_k`, -1 a copy) and the indices of those files; None for none.
    """
    parts = [_read_batch(path, bucket) for path in files]
    sizes = np.array([len(part) for part in parts])
    if not sizes.sum():
        return None, []
    table = pa.Table.from_batches(parts)
    high, low = table["high"].to_numpy(), table["low"].to_numpy()
    raw, place = table["raw"].to_numpy(), table["place"].to_numpy()
    unit = np.repeat(np.arange(len(files)), sizes)
    groups = _groups(high, low)
    with_copies = "doc_high" in table.column_names
    shared = _in_several(groups, unit)[groups]
    if with_copies and top_k:
        shared[:] = True  # top_k has not cut the units of such a job
    if not shared.any():
        return None, []
    groups, raw = groups[shared], raw[shared]
    kept = np.full(len(groups), True)
    if with_copies:
        documents = _groups(*(table[n].to_numpy()[shared] for n in ("doc_high", "doc_low")))
        kept = _first_of_each(groups, documents)
    ranks = np.full(len(groups), _COPY, dtype=np.int32)
    ranks[kept] = ranks_within(groups[kept], raw[kept])
    if top_k:
        ranks[ranks > top_k] = _CUT
    unit, place = unit[shared], place[shared]
    touched = np.unique(unit)
    edges = [*np.searchsorted(unit, touched).tolist(), len(unit)]
    schema = _RANKS.with_metadata({"touched": json.dumps(touched.tolist())})
    batches = [
        pa.record_batch([pa.array(place[cut]), pa.array(ranks[cut])], schema=schema)
        for cut in map(slice, edges, edges[1:])
    ]
    return _as_bytes(batches, schema), touched.tolist()


def _as_bytes(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def _read_batch(path: Path, number: int) -> pa.RecordBatch:
    # Read, not mapped: a mapped file would be held open once per unit.
    with pa.OSFile(str(path), "rb") as source, pa.ipc.open_file(source) as reader:
        return reader.get_batch(number)


def _groups(high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> Ints:
    """Number the distinct (high, low) keys."""
    order = np.lexsort((low, high))
    new = np.r_[False, (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])]
    groups = np.empty(len(high), dtype=np.int64)
    groups[order] = np.cumsum(new)
    return groups


def _first_of_each(groups: Ints, documents: Ints) -> npt.NDArray[np.bool_]:
    """Say of each entry whether it is the first with its group and document."""
    order = np.lexsort((documents, groups))  # stable: the earlier comes first
    same = (np.diff(groups[order]) == 0) & (np.diff(documents[order]) == 0)
    first = np.full(len(groups), True)
    first[order[1:][same]] = False
    return first


def _in_several(groups: Ints, unit: Ints) -> npt.NDArray[np.bool_]:
    """Say of each group whether its entries come from more than one unit."""
    count = int(groups.max()) + 1
    first = np.full(count, np.iinfo(np.int64).max)
    last = np.full(count, -1)
    np.minimum.at(first, groups, unit)
    np.maximum.at(last, groups, unit)
    return np.asarray(first != last)


def read_ranks(path: Path, unit: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return (places, ranks) of one unit from a bucket's ranks; both empty if it has none."""
    with pa.OSFile(str(path), "rb") as source, pa.ipc.open_file(source) as reader:
        touched = json.loads(reader.schema.metadata[b"touched"])
        if unit not in touched:
            return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32)
        batch = reader.get_batch(touched.index(unit))
        return batch["place"].to_numpy().copy(), batch["rank"].to_numpy().copy()


def copies_in(updates: Sequence[tuple[Ints | Any, Any]]) -> list[int]:
    """Return the places of a unit that the merge found to be copies."""
    return sorted(int(place) for places, ranks in updates for place in places[ranks == _COPY])


def rows_of_places(path: Path) -> dict[int, int]:
    """Return the input row of each place in a unit's result, from its sidecar."""
    with pa.OSFile(str(path), "rb") as source, pa.ipc.open_file(source) as reader:
        table = reader.read_all()
    places, rows = table["place"].to_numpy(), table["row"].to_numpy()
    return dict(zip(places.tolist(), rows.tolist(), strict=True))


def apply_ranks(
    table: pa.Table, column: str, updates: Sequence[tuple[Ints | Any, Any]]
) -> pa.Table:
    """Return the unit's rows with the merged ranks; rows without one are dropped."""
    ranks = table[column].to_numpy().copy()
    for places, values in updates:
        ranks[places] = values
    index = table.schema.get_field_index(column)
    out = table.set_column(index, table.schema.field(index), pa.array(ranks, pa.int32()))
    return out.filter(pa.array(ranks > 0))
