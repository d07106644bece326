"""Tables in, tables out, exactly once: the offline front end.

    pipelines.run_job(RerankJobConfig(input=("in/",), output="out"))  # as the command line does
    pipelines.read_output("out")  # the finished result, checked against the manifest

A finished job's folder reads like any Parquet data set (pyarrow, pandas, polars, duckdb), because
everything but the result starts with an underscore. Before the job has finished there is no data
file to be seen, and `read_output` refuses.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow.dataset

    from pipelines.config import RerankJobConfig

__all__ = ["read_output", "run_job"]


def run_job(config: RerankJobConfig) -> dict[str, Any]:
    """Run or resume a job on Ray and return its manifest; progress goes to stderr.

    Joins the Ray that runs in this process, else starts one. Raises RerankError.
    """
    from pipelines import job

    return job.run_job(config)


def read_output(path: str | PathLike[str]) -> pyarrow.dataset.Dataset:
    """Return the result of a finished job as a data set, files in the order of the input.

    Raises InvalidRequest when the job has not finished.
    """
    from pipelines.commits.verify import open_result

    return open_result(path)
