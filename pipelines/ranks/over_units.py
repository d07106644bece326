"""The second committed stage: queries whose candidates lie in several units are ranked as one.

Four steps over rows of 28 bytes, as an external sort has them: units are gathered into groups cut
by bucket of queries, each bucket is ranked, the ranks are scattered to groups cut by unit, and
units whose ranks changed are written again. So there are reads in units + 4 x groups x buckets,
and no task holds a query's texts. It does not know Ray; each step's task may be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.commits.checks import Incomplete
from pipelines.commits.records import JobFolder, JobRecords
from pipelines.commits.store import at_once
from pipelines.engine import Engine, JobContext
from pipelines.inputs.units import Say, unit_name
from pipelines.ranks.bucket import bucket_of, rank_bucket
from pipelines.ranks.rewrite import rewrite_one
from pipelines.ranks.rows import RANKED, in_parts, part_bounds, read_part, scored_kind, with_unit

# Rows that one task gathers or scatters: about 700 MB at its peak.
GROUP_ROWS = 8_000_000
Record = dict[str, Any]


def rank_over_units(
    engine: Engine,
    context: JobContext,
    records: dict[str, Record],
    say: Say,
    group_rows: int = GROUP_ROWS,
) -> JobRecords:
    """Rank the queries that lie in several units and write those units' rows again.

    Takes the records of all units, by name in plan order; returns them with those of the ranks.
    `say` is told a step's name, and how many of how many tasks are done. Raises Incomplete when a
    task has left no record.
    """
    folder, config = context.folder, context.config
    kind = scored_kind(with_documents=config.duplicates != "keep")
    run = partial(run_step, engine, folder, say)
    groups = unit_groups([record["counts"]["rows_in"] for record in records.values()], group_rows)
    starts = [first for first, _ in groups]
    gather = partial(gather_one, folder=folder, buckets=context.buckets, kind=kind)
    gathered = run("gathered", _gathers(groups, records), gather)
    rank = partial(rank_one, folder=folder, files=_files(gathered), starts=starts)
    rank = partial(rank, kind=with_unit(kind), top_k=config.top_k)
    ranks = run(
        "ranks", [{"name": unit_name(b), "bucket": b} for b in range(context.buckets)], rank
    )
    scatters = [
        {"name": unit_name(g), "group": g, "first": first, "stop": stop}
        for g, (first, stop) in enumerate(groups)
    ]
    scatter = partial(scatter_one, folder=folder, files=_files(ranks))
    scattered = run("scattered", scatters, scatter)
    rewrites = [
        {"name": unit_name(unit), "file": record["file"]["file"], "start": start, "stop": stop}
        for record in scattered.values()
        for unit, (start, stop) in zip(record["touched"], record["parts"], strict=True)
    ]
    final = run("final", rewrites, partial(rewrite_one, folder=folder, names=config.names))
    return JobRecords(records, ranks, scattered, final)


def _gathers(groups: list[tuple[int, int]], records: dict[str, Record]) -> list[dict[str, Any]]:
    files = [(record.get("sidecar") or {}).get("file", "") for record in records.values()]
    return [
        {"name": unit_name(g), "first": first, "files": json.dumps(files[first:stop])}
        for g, (first, stop) in enumerate(groups)
    ]


def _files(records: dict[str, Record]) -> list[str]:
    return [record["file"]["file"] for record in records.values()]


def run_step(
    engine: Engine,
    folder: JobFolder,
    say: Say,
    stage: str,
    items: list[dict[str, Any]],
    task: Callable[[dict[str, Any]], dict[str, str]],
) -> dict[str, Record]:
    """Run the tasks that have no record yet; return the records of all, in the items' order."""
    done = folder.done(stage) & {item["name"] for item in items}
    records = folder.records(stage, done)
    say(stage, len(records), len(items))
    for line in engine.run_tasks([item for item in items if item["name"] not in done], task):
        records[line["name"]] = line["record"]
        say(stage, len(records), len(items))
    missing = [item["name"] for item in items if item["name"] not in records]
    if missing:
        raise Incomplete(
            f"{len(missing)} of {len(items)} tasks of the step {stage} left no record, the first"
            f" is {missing[0]}; the same command again does them"
        )
    return {item["name"]: records[item["name"]] for item in items}


def unit_groups(rows: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Return ranges of neighbouring units, given their rows, of `most` rows or of one unit."""
    groups, first, held = [], 0, 0
    for unit, count in enumerate(rows):
        if unit > first and held + count > most:
            groups.append((first, unit))
            first, held = unit, 0
        held += count
    return [*groups, (first, len(rows))]


def gather_one(
    item: dict[str, Any], folder: JobFolder, buckets: int, kind: np.dtype[Any]
) -> dict[str, str]:
    """Put the rows of a group's units into one file, cut by bucket."""
    files = enumerate(json.loads(item["files"]), start=int(item["first"]))
    keys = {number: f"_job/sidecars/{file}" for number, file in files if file}
    parts = []
    for number, body in zip(keys, folder.store.read_all(keys.values()), strict=True):
        rows = np.frombuffer(body, kind)
        part = np.zeros(len(rows), with_unit(kind))
        for name in kind.names or ():
            part[name] = rows[name]
        part["unit"] = number
        parts.append(part)
    rows = np.concatenate(parts) if parts else np.zeros(0, with_unit(kind))
    body = in_parts(rows, bucket_of(rows, buckets), buckets)
    return publish(folder, "gathered", item["name"], body)


def rank_one(
    item: dict[str, Any],
    folder: JobFolder,
    files: list[str],
    starts: list[int],
    kind: np.dtype[Any],
    top_k: int | None,
) -> dict[str, str]:
    """Rank one bucket over all groups' files; its new ranks are cut by group of units."""
    rows = read_parts(folder, files, int(item["bucket"]), kind)
    ranked = rank_bucket(rows, top_k)
    group = np.searchsorted(starts, ranked["unit"], side="right") - 1
    body = in_parts(ranked, group, len(starts))
    return publish(folder, "ranks", item["name"], body, rows=len(ranked))


def scatter_one(item: dict[str, Any], folder: JobFolder, files: list[str]) -> dict[str, str]:
    """Put a group's new ranks of all buckets into one file, cut by unit."""
    ranked = read_parts(folder, files, int(item["group"]), RANKED)
    first, stop = int(item["first"]), int(item["stop"])
    body = in_parts(ranked, ranked["unit"] - first, stop - first)
    touched = np.unique(ranked["unit"]).tolist()
    bounds = part_bounds(body, stop - first)
    parts = [bounds[unit - first] for unit in touched]
    return publish(
        folder, "scattered", item["name"], body, rows=len(ranked), touched=touched, parts=parts
    )


def read_parts(
    folder: JobFolder, files: Sequence[str], number: int, kind: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Return the rows that one part has in all of these scratch files, read at once."""
    keys = [f"_job/scratch/{file}" for file in files]
    return np.concatenate(at_once(lambda key: read_part(folder.store, key, number, kind), keys))


def publish(folder: JobFolder, stage: str, name: str, body: bytes, **more: Any) -> dict[str, str]:
    """Write what a task made and its record, unless it has one; return the line of the first."""
    file = folder.write_bytes("scratch", f"{stage}-{name}", ".rows", body)
    record = {"file": file, **more}
    if not folder.publish(stage, name, record):
        folder.drop("scratch", file)
        record = folder.records_one(stage, name)
    return {"line": json.dumps({"name": name, "record": record})}
