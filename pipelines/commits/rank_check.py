"""Whether a result's ranks are right: for every query 1 to n, each once. It reads only two columns.

Works on the files alone, so that it finds what any fault before it has done. One process that adds
up all needs about 60 bytes for each query; a job's workers share the queries (`ranks/rank_steps`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.columns import ColumnNames
from pipelines.commits.checks import Incomplete
from pipelines.commits.store import Item, Result, Store, Told, at_once
from pipelines.inputs.ids import plain_ids

Ints = npt.NDArray[np.int64]

# Files that are read at once.
_THREADS = 4
# Rows whose ranks are counted at once, and sums of queries that are held beside those of all.
_BATCH_ROWS, _HELD_ROWS = 1 << 17, 1 << 18


def refuse_wrong_ranks(
    store: Store, sizes: Mapping[str, int], names: ColumnNames, say: Told = lambda done: None
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
    sums = Sums()
    with ThreadPoolExecutor(_THREADS) as pool:
        counted = _few_ahead(pool, lambda file: sums_of_file(store, *file, names), files)
        for done, parts in enumerate(counted, start=1):
            sums.add(parts)
            say(done)
    _refuse(sums.all())


def _few_ahead(
    pool: ThreadPoolExecutor, call: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """Yield what the call returns for each item, without holding what nobody has asked for yet."""
    rest = iter(items)
    waiting = deque(pool.submit(call, item) for item in islice(rest, _THREADS))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(call, item) for item in islice(rest, 1))


class Sums:
    """What is known of each query, added up before it is much more than the queries need."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []
        self._rows = 0

    def add(self, parts: list[pa.Table]) -> None:
        """Take in the sums of a file."""
        self._parts += parts
        self._rows += sum(part.num_rows for part in parts)
        if self._parts and self._rows > max(_HELD_ROWS, 2 * self._parts[0].num_rows):
            self._parts = [self.all()]
            self._rows = self._parts[0].num_rows

    def all(self) -> pa.Table:
        """Return the sums of all."""
        if not self._parts:
            return pa.table([[]] * 5, ["query", *SUMS])
        return _added(pa.concat_tables(self._parts, promote_options="permissive"))


def sums_of_file(store: Store, key: str, size: int, names: ColumnNames) -> list[pa.Table]:
    """Return how many ranks each query has in parts of a file, the highest, and two sums.

    There are none where the file has no query ids.
    """

    def count(source: pa.NativeFile) -> list[pa.Table]:
        file, columns = pq.ParquetFile(source), [names.query_id, names.rank]
        if names.query_id not in file.schema_arrow.names:
            return []
        batches = file.iter_batches(_BATCH_ROWS, columns=columns)
        return [_sums_of(pa.Table.from_batches([batch]), names) for batch in batches]

    return store.with_file(key, count, size)


def _sums_of(table: pa.Table, names: ColumnNames) -> pa.Table:
    ids = plain_ids(table[names.query_id])
    rank = table[names.rank].cast(pa.int64())
    ones = pa.array(np.ones(len(rank), np.int64))
    return _added(pa.table([ids, ones, rank, rank, pc.multiply(rank, rank)], ["query", *SUMS]))


SUMS = ("count", "highest", "sum", "squares")


def _added(table: pa.Table) -> pa.Table:
    ways: Any = [(name, "max" if name == "highest" else "sum") for name in SUMS]
    grouped = table.group_by("query", use_threads=False).aggregate(ways)
    return grouped.select(["query", *[f"{name}_{way}" for name, way in ways]]).rename_columns(
        ["query", *SUMS]
    )


def _refuse(found: pa.Table) -> None:
    if not found.num_rows:
        return
    n = found["count"].to_numpy()
    right = are_1_to_n(*(found[name].to_numpy() for name in SUMS))
    if not right.all():
        place = int(np.flatnonzero(~right)[0])
        raise Incomplete(
            f"the ranks of {int((~right).sum()):,} queries are not 1 to n; the first is"
            f" {_shown(found['query'], place)}, with {n[place]} documents"
        )


def are_1_to_n(n: Ints, highest: Ints, total: Ints, squares: Ints) -> npt.NDArray[np.bool_]:
    """Say of each query whether n ranks with this highest one and these sums are 1 to n."""
    # n numbers from 1 to n with these two sums are 1 to n, but for sets nobody makes by accident.
    right = (highest == n) & (total == n * (n + 1) // 2)
    large = n.astype(object) if n.max(initial=0) > 2_000_000 else n  # beyond 64 bits, sums wrap
    sums = large * (large + 1) * (2 * large + 1) // 6
    right &= squares.astype(np.uint64) == (sums % 2**64 if large is not n else sums)
    return np.asarray(right, np.bool_)


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
