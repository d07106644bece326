"""The stage on Ray Data: scoring on a pool of actors, and what brings a query's rows together.

It does not know how a pair is scored or a rank is found.
"""

from __future__ import annotations

from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset

from pipelines.config import StageConfig
from pipelines.engine import LoadScorer
from pipelines.inputs.ids import id_values
from pipelines.inputs.schemas import check_stage, shape_of, with_fields
from pipelines.ranks.rows import hashes
from pipelines.ranks.tables import BUCKET, rank_pairs
from pipelines.stages.ray_pool import pool, replica_needs
from pipelines.stages.rerank_tables import NESTED_PER_CALL, PAIRS_PER_CALL, RerankTables
from rerank_core import InvalidRequest

# A GPU is busy with so many times the rows that a CPU core is.
_GPU_TIMES = 8


def rerank_dataset(dataset: Dataset, config: StageConfig, load: LoadScorer) -> Dataset:
    """Return the data set with scores and ranks; nothing runs before somebody wants its rows.

    Asks Ray Data for the schema where the settings do not say the shape. Raises InvalidRequest
    where the columns are known and cannot be ranked.
    """
    schema = dataset.schema(fetch_if_missing=config.shape is None)
    shape = config.shape or "pairs"
    if schema is not None:
        shape = shape_of(schema, config)
    if isinstance(columns := getattr(schema, "base_schema", None), pa.Schema):
        check_stage(with_fields(columns.empty_table(), config.names).schema, config)
    gpus, cpus = replica_needs(config)
    times = _GPU_TIMES if gpus else 1
    usual = times * (NESTED_PER_CALL if shape == "nested" else PAIRS_PER_CALL)
    config = config.model_copy(update={"batch_rows": config.batch_rows or usual, "shape": shape})
    in_pool: dict[str, Any] = {
        "batch_format": "pyarrow",
        "num_cpus": cpus,
        "num_gpus": gpus,
        "compute": pool(config, gpus, cpus),
    }
    arguments: tuple[Any, ...] = (config, load)
    if shape == "nested":
        return dataset.map_batches(
            RerankTables, batch_size=config.batch_rows, fn_constructor_args=arguments, **in_pool
        )
    if config.grouped:
        arguments = (*arguments, _Edges.remote())  # type: ignore[attr-defined]
        return dataset.map_batches(
            RerankBlocks, batch_size=None, fn_constructor_args=arguments, **in_pool
        )
    scored = dataset.map_batches(
        ScorePairs, batch_size=config.batch_rows, fn_constructor_args=arguments, **in_pool
    )
    ranked = partial(rank_pairs, config=config, gathered=True)
    return scored.groupby(BUCKET).map_groups(ranked, batch_format="pyarrow")


class ScorePairs(RerankTables):
    """Scores pairs whose queries are brought together afterwards."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the rows with all but their ranks."""
        return self.scored(table)


class RerankBlocks(RerankTables):
    """Reranks blocks that hold all pairs of their queries, and makes sure that they do."""

    def __init__(self, config: StageConfig, load: LoadScorer, edges: Any) -> None:
        super().__init__(config, load)
        self._edges = edges

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the rows of one block with scores and ranks."""
        if table.num_rows and ray.get(self._edges.torn.remote(self._at_edges(table))):
            raise _broken_promise()
        return super().__call__(table)

    def _at_edges(self, table: pa.Table) -> dict[bytes, bytes]:
        """Return the first and the last query with their documents, as hashes."""
        names = self._config.names
        ids = zip(id_values(table[names.query_id]), id_values(table[names.doc_id]), strict=True)
        runs = [(query, list(rows)) for query, rows in groupby(ids, itemgetter(0))]
        queries = [query for query, _ in runs if query is not None]
        if len(set(queries)) < len(queries):
            raise _broken_promise()
        edges = [(query, rows) for query, rows in (runs[0], runs[-1]) if query is not None]
        return {bytes(hashes([query])): bytes(hashes([rows])) for query, rows in edges}


def _broken_promise() -> InvalidRequest:
    return InvalidRequest(
        "grouped promises that all pairs of a query lie side by side in one block, and here they"
        " do not: leave grouped out, or make the rows nested",
        "grouped",
    )


@ray.remote(num_cpus=0)
class _Edges:
    """Remembers the queries at the edges of blocks; only those can lie in two."""

    def __init__(self) -> None:
        self._seen: dict[bytes, bytes] = {}

    def torn(self, queries: dict[bytes, bytes]) -> bool:
        """Say whether one of the queries was met with other pairs; a block may come again."""
        return any(self._seen.setdefault(query, pairs) != pairs for query, pairs in queries.items())
