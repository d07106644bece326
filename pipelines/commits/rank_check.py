"""Whether a result's ranks are right: for every query 1 to n, each once. It reads only two columns.

Works on the files alone, so that it finds what any fault before it has done. A driver needs about
60 bytes for each query.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.columns import ColumnNames
from pipelines.commits.checks import Incomplete
from pipelines.commits.store import Say, Store, at_once
from pipelines.inputs.ids import plain_ids

_THREADS = 8
# Files whose counts are added up at once.
_AT_ONCE = 256


def refuse_wrong_ranks(
    store: Store, sizes: Mapping[str, int], names: ColumnNames, say: Say = lambda done: None
) -> None:
    """Raise Incomplete if a query's ranks over all files are not 1 to n, each once.

    `sizes` has the bytes of each file by its key. Queries of nested rows are complete in their row.
    Where the output has no query ids, nothing can be said of ranks over rows.
    """
    files = list(sizes.items())
    there = store.with_file(files[0][0], pq.read_schema).names if files else []
    nested = names.candidates in there
    if nested or names.query_id not in there:
        at_once(partial(_check_nested, store=store, names=names), files if nested else (), say)
        return
    found: pa.Table | None = None
    done = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = pool.map(partial(_counted, store=store, names=names), files)
        while block := list(islice(parts, _AT_ONCE)):
            tables = block if found is None else [found, *block]
            found = _added(pa.concat_tables(tables, promote_options="permissive"))
            done += len(block)
            say(done)
    if found is not None:
        _refuse(found)


def _counted(file: tuple[str, int], store: Store, names: ColumnNames) -> pa.Table:
    """Return how many ranks each query has in a file, the highest, and two sums of them."""
    columns = [names.query_id, names.rank]
    key, size = file
    table = store.with_file(key, partial(pq.read_table, columns=columns), size)
    ids = plain_ids(table[names.query_id])
    rank = table[names.rank].cast(pa.int64())
    ones = pa.array(np.ones(len(rank), np.int64))
    squares = pc.multiply(rank, rank)
    return _added(pa.table([ids, ones, rank, rank, squares], ["query", *_SUMS]))


_SUMS = ("count", "highest", "sum", "squares")


def _added(table: pa.Table) -> pa.Table:
    ways: Any = [(name, "max" if name == "highest" else "sum") for name in _SUMS]
    grouped = table.group_by("query", use_threads=False).aggregate(ways)
    return grouped.select(["query", *[f"{name}_{way}" for name, way in ways]]).rename_columns(
        ["query", *_SUMS]
    )


def _refuse(found: pa.Table) -> None:
    # n numbers from 1 to n with these two sums are 1 to n, but for sets nobody makes by accident.
    n, highest, total, squares = (found[name].to_numpy() for name in _SUMS)
    right = (highest == n) & (total == n * (n + 1) // 2)
    large = n.astype(object) if n.max() > 2_000_000 else n  # beyond 64 bits, where Arrow wraps
    sums = large * (large + 1) * (2 * large + 1) // 6
    right &= squares.astype(np.uint64) == (sums % 2**64 if large is not n else sums)
    if not right.all():
        place = int(np.flatnonzero(~right)[0])
        raise Incomplete(
            f"the ranks of {int((~right).sum()):,} queries are not 1 to n; the first is"
            f" {_shown(found['query'], place)}, with {n[place]} documents"
        )


def _shown(column: Any, place: int) -> str:
    try:
        return repr(column[place].as_py())
    except UnicodeDecodeError:
        return "one whose id is not UTF-8"


def _check_nested(file: tuple[str, int], store: Store, names: ColumnNames) -> None:
    key, size = file
    if not store.with_file(key, partial(_ranked_in_their_row, names=names), size):
        raise Incomplete(f"{key} has a row whose candidates are not ranked 1 to n")


def _ranked_in_their_row(file: pa.NativeFile, names: ColumnNames) -> bool:
    parquet = pq.ParquetFile(file)
    inner = f"{names.candidates}.list.element.{names.rank}"
    for batch in parquet.iter_batches(columns=[inner]):
        lists: Any = batch.column(0)
        offsets = lists.offsets.to_numpy()
        ranks = lists.values.field(names.rank).to_numpy()[offsets[0] : offsets[-1]]
        counts = np.diff(offsets)
        expected = np.arange(len(ranks)) - np.repeat(offsets[:-1] - offsets[0], counts) + 1
        if not np.array_equal(ranks, expected):
            return False
    return True
