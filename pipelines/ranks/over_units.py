"""The second committed stage: queries whose candidates lie in several units are ranked as one.

Bucket by bucket over scores alone, then the touched units are written again with their final ranks.
It does not know Ray; `merge_one` and `rewrite_one` are tasks, and may be repeated.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.columns import ColumnNames
from pipelines.commits.quarantine import copies_table
from pipelines.commits.records import JobFolder
from pipelines.engine import Engine, JobContext
from pipelines.inputs.pairs import DUPLICATE
from pipelines.ranks.sidecars import (
    apply_ranks,
    copies_in,
    merge_bucket,
    read_ranks,
    rows_of_places,
)


def merge_queries(engine: Engine, context: JobContext, records: dict[str, dict[str, Any]]) -> None:
    """Rank the queries that lie in several units and write those units' rows again.

    Takes the records of all units, by name in plan order.
    """
    folder, top_k = context.folder, context.config.top_k
    done = folder.done("ranks")
    buckets = [{"bucket": b} for b in range(context.buckets) if f"{b:06d}" not in done]
    merging = [name for name, record in records.items() if record.get("sidecar")]
    sidecars = [records[name]["sidecar"]["file"] for name in merging]
    merge = partial(merge_one, folder=folder, units=merging, sidecars=sidecars, top_k=top_k)
    for _ in engine.run_tasks(buckets, merge):
        pass
    touched = touched_units(folder)
    done = folder.done("final")
    rewrites = [
        {"unit": name, "updates": json.dumps(updates)}
        for name, updates in touched.items()
        if name not in done
    ]
    rewrite = partial(rewrite_one, folder=folder, names=context.config.names)
    for _ in engine.run_tasks(rewrites, rewrite):
        pass


def merge_one(
    row: dict[str, Any], folder: JobFolder, units: list[str], sidecars: list[str], top_k: int | None
) -> dict[str, str]:
    """Rank one bucket over all units and publish its record; return a line for the stream.

    `units` and `sidecars` (their files) are in plan order.
    """
    bucket = int(row["bucket"])
    name = f"{bucket:06d}"
    paths = [folder.job / "sidecars" / file for file in sidecars]
    body, touched = merge_bucket(paths, bucket, top_k)
    file = folder.write_bytes("merged", name, ".arrow", body) if body else None
    record = {"file": file, "touched": [units[i] for i in touched], "places": touched}
    if not folder.publish("ranks", name, record):
        folder.drop("merged", file)
    return {"line": json.dumps({"bucket": name})}


def touched_units(folder: JobFolder) -> dict[str, list[list[Any]]]:
    """Map each unit with a shared query to the (ranks file, its number there) it needs."""
    touched: dict[str, list[list[Any]]] = {}
    for record in folder.records("ranks").values():
        for name, place in zip(record["touched"], record["places"], strict=True):
            touched.setdefault(name, []).append([record["file"]["file"], place])
    return touched


def rewrite_one(row: dict[str, Any], folder: JobFolder, names: ColumnNames) -> dict[str, str]:
    """Write a unit again with its merged ranks and publish its final record; return a line."""
    name = str(row["unit"])
    record = folder.records_one("units", name)
    updates = [
        read_ranks(folder.job / "merged" / file, place)
        for file, place in json.loads(row["updates"])
    ]
    table = pq.read_table(folder.job / "data" / record["data"]["file"])
    ranked = apply_ranks(table, names.rank, updates)
    copies = copies_in(updates)
    gone = table.num_rows - ranked.num_rows
    counts = dict(record["counts"])
    for kind in ("rows", "pairs"):
        counts[f"{kind}_out"] -= gone
        counts[f"{kind}_cut"] += gone - len(copies)
        counts[f"{kind}_quarantined"] += len(copies)
    data = folder.write_parquet("data", name, ranked) if ranked.num_rows else None
    final = {**record, "counts": counts, "data": data}
    if copies:
        final |= _set_copies_aside(folder, name, record, table, copies, names)
    if not folder.publish("final", name, final):
        folder.drop("data", data)
        if copies:
            folder.drop("quarantine", final["aside"])
    return {"line": json.dumps({"unit": name})}


def _set_copies_aside(
    folder: JobFolder,
    name: str,
    record: dict[str, Any],
    table: pa.Table,
    copies: list[int],
    names: ColumnNames,
) -> dict[str, Any]:
    """Write the unit's rows set aside again, with its copies; return what changes in its record."""
    rows = rows_of_places(folder.job / "sidecars" / record["sidecar"]["file"])
    lines = copies_table(table, copies, [rows[place] for place in copies], record["file"], names)
    if record["aside"]:
        former = pq.read_table(folder.job / "quarantine" / record["aside"]["file"])
        lines = pa.concat_tables([former, lines])
    reasons = dict(record["reasons"])
    reasons[DUPLICATE] = reasons.get(DUPLICATE, 0) + len(copies)
    return {"aside": folder.write_parquet("quarantine", name, lines), "reasons": reasons}
