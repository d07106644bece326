"""The stage on Ray Data: scoring on a pool of actors, and what brings a query's rows together.

It does not know how a pair is scored or a rank is found.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset

from pipelines.config import StageConfig
from pipelines.engine import LoadScorer
from pipelines.inputs.schemas import check_stage, shape_of, with_fields
from pipelines.ranks.grouped import Edges, at_edges, broken_promise
from pipelines.ranks.tables import BUCKET, rank_pairs
from pipelines.stages.ray_pool import pool, replica_needs
from pipelines.stages.rerank_tables import NESTED_PER_CALL, PAIRS_PER_CALL, RerankTables

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
        arguments = (*arguments, ray.remote(num_cpus=0)(Edges).remote())
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
        if table.num_rows and ray.get(self._edges.torn.remote(at_edges(table, self._config.names))):
            raise broken_promise()
        return super().__call__(table)
