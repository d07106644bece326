"""Parquet in, Parquet out, exactly once: the offline front end.

A finished job's folder OUT reads like any Parquet data set, because everything but the result
starts with an underscore:

    pyarrow.parquet.read_table(OUT)        # or pyarrow.dataset.dataset(OUT), pandas, polars, duckdb
    pipelines.read_output(OUT)             # the same, checked against the manifest

Before the job has finished there is no data file to be seen, and `read_output` refuses.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow.dataset

__all__ = ["read_output"]


def read_output(path: str | PathLike[str]) -> pyarrow.dataset.Dataset:
    """Return the result of a finished job as a data set, files in the order of the input.

    Raises InvalidRequest when the job has not finished.
    """
    from pipelines.verify import open_result

    return open_result(path)
