"""Whether a query's pairs lie side by side in one block, as those who say so promise. Pure."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter

import pyarrow as pa

from pipelines.columns import ColumnNames
from pipelines.inputs.ids import id_values
from pipelines.ranks.rows import hashes
from rerank_core import InvalidRequest


def at_edges(table: pa.Table, names: ColumnNames) -> dict[bytes, bytes]:
    """Return a block's first and last query, each with its documents, as hashes.

    Raises InvalidRequest where a query's pairs lie apart.
    """
    ids = zip(id_values(table[names.query_id]), id_values(table[names.doc_id]), strict=True)
    runs = [(query, list(pairs)) for query, pairs in groupby(ids, itemgetter(0))]
    known = [(query, pairs) for query, pairs in runs if query is not None]
    if len({query for query, _ in known}) < len(known):
        raise broken_promise()
    edges = [*known[:1], *known[-1:]]
    return {bytes(hashes([query])): bytes(hashes([pairs])) for query, pairs in edges}


def broken_promise() -> InvalidRequest:
    """Return the error that says so."""
    return InvalidRequest(
        "grouped promises that all pairs of a query lie side by side in one block, and here they"
        " do not: leave grouped out, or make the rows nested",
        "grouped",
    )


class Edges:
    """Remembers the queries at the edges of all blocks; only those can lie in two."""

    def __init__(self) -> None:
        self._seen: dict[bytes, bytes] = {}

    def torn(self, queries: dict[bytes, bytes]) -> bool:
        """Say whether one of the queries was met with other pairs; a block may come again."""
        return any(self._seen.setdefault(query, pairs) != pairs for query, pairs in queries.items())
