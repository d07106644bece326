"""The second committed stage: queries whose candidates lie in several units are ranked as one.

Three steps over rows of 36 bytes, as an external sort has them: units are gathered into groups cut
by bucket of queries, each bucket is ranked, and the ranks are scattered to groups cut by unit. So
there are reads in units + 2 x groups x buckets, and no task holds a query's texts. The new ranks
are applied where output files are made. It does not know Ray; each step's task may be repeated.
"""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from pipelines.commits.records import JobFolder, JobRecords, attempt_key
from pipelines.commits.store import at_once
from pipelines.engine import JobContext, Tasks
from pipelines.inputs.units import Say, unit_name
from pipelines.ranks.bucket import by_bucket, rank_bucket, task_rows
from pipelines.ranks.rows import (
    RANKED,
    Rows,
    as_kind,
    in_parts,
    read_rows,
    scored_kind,
    with_unit,
)
from pipelines.ranks.steps import (
    Parts,
    Record,
    files_of,
    publish,
    read_parts,
    run_step,
    unit_groups,
)


def rank_over_units(
    engine: Tasks, context: JobContext, records: dict[str, Record], say: Say
) -> JobRecords:
    """Rank the queries that lie in several units.

    Takes the records of all units, by name in plan order; returns them with those of the ranks.
    `say` is told a step's name, and how many of how many tasks are done. Raises Incomplete when a
    task has left no record.
    """
    folder, config = context.folder, context.config
    kind = scored_kind(with_documents=config.duplicates != "keep")
    run = partial(run_step, engine, folder, say)
    rows = [record["counts"]["rows_in"] for record in records.values()]
    groups = unit_groups(rows, task_rows(sum(rows)))
    starts = [first for first, _ in groups]
    gather = partial(gather_one, folder=folder, buckets=context.buckets, kind=kind)
    gathered = run("gathered", _gathers(groups, records), gather)
    rank = partial(rank_one, folder=folder, files=files_of(gathered), starts=starts)
    rank = partial(rank, kind=with_unit(kind), top_k=config.top_k, first_new=context.first_new)
    ranks = run(
        "ranks", [{"name": unit_name(b), "bucket": b} for b in range(context.buckets)], rank
    )
    scatters = [
        {"name": unit_name(g), "group": g, "first": first, "stop": stop}
        for g, (first, stop) in enumerate(groups)
    ]
    scattered = run(
        "scattered", scatters, partial(scatter_one, folder=folder, files=files_of(ranks))
    )
    return JobRecords(records, ranks, scattered)


def moved_ranks(scattered: dict[str, Record]) -> dict[int, tuple[str, int, int]]:
    """Return where the new ranks of a unit lie, by its place in the plan: file, start and stop."""
    return {
        record["first"] + number: (record["file"]["file"], start, stop)
        for record in scattered.values()
        for number, (start, stop) in enumerate(pairwise(record["ends"]))
        if start < stop
    }


def _gathers(groups: list[tuple[int, int]], records: dict[str, Record]) -> list[dict[str, Any]]:
    files = [
        [attempt_key("data", record["data"]), *record["data"]["beside"]] if record["data"] else []
        for record in records.values()
    ]
    return [
        {"name": unit_name(g), "first": first, "files": json.dumps(files[first:stop])}
        for g, (first, stop) in enumerate(groups)
    ]


def gather_one(
    item: dict[str, Any], folder: JobFolder, buckets: int, kind: np.dtype[Any]
) -> dict[str, str]:
    """Put the scores of a group's units into one file, cut by bucket."""
    files = [
        (number, *file)
        for number, file in enumerate(json.loads(item["files"]), start=int(item["first"]))
        if file
    ]

    def read(file: tuple[int, str, int, int]) -> Rows:
        number, key, start, stop = file
        rows = read_rows(folder.store, key, (start, stop), kind)
        part = as_kind(rows, with_unit(kind))
        part["unit"] = number
        return part

    rows = np.concatenate([np.zeros(0, with_unit(kind)), *at_once(read, files)])
    return publish(folder, "gathered", item["name"], by_bucket(rows, buckets))


def rank_one(
    item: dict[str, Any],
    folder: JobFolder,
    files: list[Parts],
    starts: list[int],
    kind: np.dtype[Any],
    top_k: int | None,
    *,
    first_new: int = 0,
) -> dict[str, str]:
    """Rank one bucket over all groups' files; its new ranks are cut by group of units."""
    rows = read_parts(folder, files, int(item["bucket"]), kind)
    ranked, moved = rank_bucket(rows, top_k, first_new)
    group = np.searchsorted(starts, ranked["unit"], side="right") - 1
    made = in_parts(ranked, group, len(starts))
    return publish(folder, "ranks", item["name"], made, rows=len(ranked), **moved)


def scatter_one(item: dict[str, Any], folder: JobFolder, files: list[Parts]) -> dict[str, str]:
    """Put a group's new ranks of all buckets into one file, cut by unit."""
    ranked = read_parts(folder, files, int(item["group"]), RANKED)
    first, stop = int(item["first"]), int(item["stop"])
    made = in_parts(ranked, ranked["unit"] - first, stop - first)
    return publish(folder, "scattered", item["name"], made, rows=len(ranked), first=first)
