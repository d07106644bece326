"""Checks ranks of queries whose rows lie in several files, on the workers, from the files alone.

Files are counted in groups, cut by bucket of queries, and each bucket is added up: so nobody holds
all queries of a job. It does not know Ray; a task may be repeated.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np

from pipelines.columns import ColumnNames
from pipelines.commits.checks import Incomplete
from pipelines.commits.rank_check import SUMS, Sums, are_1_to_n, sums_of_file
from pipelines.commits.records import JobFolder, JobRecords, attempt_key
from pipelines.engine import Tasks
from pipelines.inputs.ids import id_values
from pipelines.inputs.units import Say, unit_name
from pipelines.ranks.bucket import by_bucket, task_rows
from pipelines.ranks.rows import hashes
from pipelines.ranks.steps import Parts, files_of, publish, read_parts, run_step, unit_groups

# What is known of a query in some files: its hash, and counts and sums of its ranks.
_KNOWN = np.dtype([("high", "<u8"), ("low", "<u8"), *[(name, "<i8") for name in SUMS]])


def check_ranks(
    engine: Tasks, folder: JobFolder, records: JobRecords, names: ColumnNames, say: Say
) -> None:
    """Raise Incomplete if a query's ranks in the output files are not 1 to n, each once.

    Where the output has no query ids nothing can be said. `say` is as in ranking over units.
    """
    files = [group["data"] for group in records.final.values() if group["data"]]
    rows = [int(file["rows"]) for file in files]
    buckets = max(1, len(records.ranks))
    items = [
        {"name": unit_name(number), "count": json.dumps(files[first:stop])}
        for number, (first, stop) in enumerate(unit_groups(rows, task_rows(sum(rows))))
    ]
    count = partial(count_one, folder=folder, names=names, buckets=buckets)
    counted = run_step(engine, folder, say, "counted", items, count)
    parts = [{"name": unit_name(number), "check": number} for number in range(buckets)]
    check = partial(check_one, folder=folder, files=files_of(counted))
    run_step(engine, folder, say, "checked", parts, check)


def count_one(
    item: dict[str, Any], folder: JobFolder, names: ColumnNames, buckets: int
) -> dict[str, str]:
    """Put what is known of each query in a few files into one file, cut by bucket."""
    sums = Sums()
    for file in json.loads(item["count"]):
        key = attempt_key("data", file)
        sums.add(sums_of_file(folder.store, key, file["bytes"], names))
    table = sums.all()
    rows = np.zeros(table.num_rows, _KNOWN)
    rows["high"], rows["low"] = hashes(id_values(table["query"])).T
    for name in SUMS:
        rows[name] = table[name].to_numpy()
    return publish(folder, "counted", item["name"], by_bucket(rows, buckets))


def check_one(item: dict[str, Any], folder: JobFolder, files: list[Parts]) -> dict[str, str]:
    """Add up what all files know of the queries of one bucket; Incomplete if it is wrong."""
    rows = read_parts(folder, files, int(item["check"]), _KNOWN)
    rows = rows[np.lexsort((rows["low"], rows["high"]))]
    new = (np.diff(rows["high"]) != 0) | (np.diff(rows["low"]) != 0)
    first = np.flatnonzero(np.r_[len(rows) > 0, new])
    n, total, squares = (np.add.reduceat(rows[name], first) for name in ("count", "sum", "squares"))
    right = are_1_to_n(n, np.maximum.reduceat(rows["highest"], first), total, squares)
    if not right.all():
        raise Incomplete(
            f"the ranks of {int((~right).sum()):,} queries are not 1 to n; the first has"
            f" {n[~right][0]} documents"
        )
    return publish(folder, "checked", item["name"], (b"", []), queries=len(n))
