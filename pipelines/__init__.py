"""Tables in, tables out, exactly once: the offline front end.

    pipelines.run_job(RerankJobConfig(input=("in/",), output="out"))  # as the command line does
    pipelines.rerank(dataset, ScorerConfig(), top_k=10)  # a stage of your own Ray Data pipeline
    pipelines.read_output("out")  # the finished result, checked against the manifest

A finished job's folder reads like any Parquet data set (pyarrow, pandas, polars, duckdb), because
everything but the result starts with an underscore. Before the job has finished there is no data
file to be seen, and `read_output` refuses.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    import pyarrow.dataset

    from pipelines.columns import ColumnNames
    from pipelines.config import RerankJobConfig
    from rerank_core import ScorerConfig

__all__ = ["read_output", "rerank", "run_job"]

Rows = TypeVar("Rows")


def run_job(config: RerankJobConfig) -> dict[str, Any]:
    """Run or resume a job on Ray and return its manifest; progress goes to stderr.

    Joins the Ray that runs in this process, else starts one. Raises RerankError.
    """
    from pipelines import run

    return run.run_job(config)


def rerank(
    data: Rows,
    scorer: ScorerConfig,
    *,
    top_k: int | None = None,
    names: ColumnNames | None = None,
    shape: Literal["pairs", "nested"] | None = None,
    grouped: bool = False,
    replicas: int | str = "auto",
    gpus_per_replica: float | None = None,
    cpus_per_replica: int = 1,
    batch_rows: int | None = None,
    reason_column: str = "reason",
    fingerprint_column: str | None = "score_fingerprint",
) -> Rows:
    """Add scores and ranks to a Ray data set, a pyarrow table or a pandas frame; return its kind.

    Rows are pairs or nested, as a job's; `names` says what their columns are called, and `shape`
    which of the two they are, where a data set would have to run its first rows to know. A data
    set is scored on a pool of `replicas`, as a job's, when its rows are wanted; tables and frames
    in this process, where the last model stays loaded.

    Nested rows stream. The pairs of a data set are gathered by query first, all of them before any
    is ranked, unless they are `grouped`: all pairs of a query side by side in one block.
    `batch_rows` are scored in one call.

    A row that cannot be scored comes out with null score and rank and a reason, behind any `top_k`.
    Raises InvalidRequest for options or columns that do not fit, ModelUnavailable.
    """
    from pipelines.stages import stage

    options: dict[str, Any] = {
        "top_k": top_k,
        "shape": shape,
        "grouped": grouped,
        "replicas": str(replicas),
        "gpus_per_replica": gpus_per_replica,
        "cpus_per_replica": cpus_per_replica,
        "batch_rows": batch_rows,
        "reason_column": reason_column,
        "fingerprint_column": fingerprint_column,
    }
    options |= {"scorer": scorer} | ({"names": names} if names else {})
    reranked: Rows = stage.rerank(data, options)
    return reranked


def read_output(path: str | PathLike[str]) -> pyarrow.dataset.Dataset:
    """Return the result of a finished job as a data set, files in the order of the input.

    Raises InvalidRequest when the job has not finished.
    """
    from pipelines.commits.verify import open_result

    return open_result(path)
