"""The second committed stage: queries whose candidates lie in several units are ranked as one.

Four steps over rows of 28 bytes, as an external sort has them: units are gathered into groups cut
by bucket of queries, each bucket is ranked, the ranks are scattered to groups cut by unit, and
units whose ranks changed are written again. So files are opened units + 2 x groups x buckets times,
and no task holds a query's texts. It does not know Ray; each step's task may be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from pipelines.commits.checks import Incomplete
from pipelines.commits.records import JobFolder, JobRecords
from pipelines.engine import Engine, JobContext
from pipelines.inputs.units import unit_name
from pipelines.ranks.bucket import bucket_of, rank_bucket
from pipelines.ranks.rewrite import rewrite_one
from pipelines.ranks.rows import RANKED, in_parts, read_part, read_rows, scored_kind, with_unit

# Rows that one task gathers or scatters: about 700 MB at its peak.
GROUP_ROWS = 8_000_000
Record = dict[str, Any]
Say = Callable[[str, int, int], None]


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
        {"name": unit_name(unit), "file": record["file"]["file"], "part": unit - first}
        for first, record in zip(starts, scattered.values(), strict=True)
        for unit in record["touched"]
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
    parts = []
    for number, file in enumerate(json.loads(item["files"]), start=int(item["first"])):
        if file:
            rows = read_rows(folder.job / "sidecars" / file, kind)
            part = np.zeros(len(rows), with_unit(rows.dtype))
            for name in rows.dtype.names or ():
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
    paths = [folder.job / "scratch" / file for file in files]
    rows = [read_part(path, int(item["bucket"]), kind) for path in paths]
    ranked = rank_bucket(np.concatenate(rows), top_k)
    group = np.searchsorted(starts, ranked["unit"], side="right") - 1
    body = in_parts(ranked, group, len(starts))
    return publish(folder, "ranks", item["name"], body, rows=len(ranked))


def scatter_one(item: dict[str, Any], folder: JobFolder, files: list[str]) -> dict[str, str]:
    """Put a group's new ranks of all buckets into one file, cut by unit."""
    paths = [folder.job / "scratch" / file for file in files]
    ranked = np.concatenate([read_part(path, int(item["group"]), RANKED) for path in paths])
    first, stop = int(item["first"]), int(item["stop"])
    body = in_parts(ranked, ranked["unit"] - first, stop - first)
    touched = np.unique(ranked["unit"]).tolist()
    return publish(folder, "scattered", item["name"], body, rows=len(ranked), touched=touched)


def publish(folder: JobFolder, stage: str, name: str, body: bytes, **more: Any) -> dict[str, str]:
    """Write what a task made and its record, unless it has one; return the line of the first."""
    file = folder.write_bytes("scratch", f"{stage}-{name}", ".rows", body)
    record = {"file": file, **more}
    if not folder.publish(stage, name, record):
        folder.drop("scratch", file)
        record = folder.records_one(stage, name)
    return {"line": json.dumps({"name": name, "record": record})}
