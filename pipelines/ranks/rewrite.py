"""Writes a unit again with its final ranks, the copies that only other units show set aside."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.columns import ColumnNames
from pipelines.commits.quarantine import copies_table
from pipelines.commits.records import JobFolder, attempt_key
from pipelines.inputs.pairs import DUPLICATE
from pipelines.ranks.bucket import apply_ranks, copies_in
from pipelines.ranks.rows import RANKED, SCORED_WITH_DOCUMENT, read_rows


def rewrite_one(item: dict[str, Any], folder: JobFolder, names: ColumnNames) -> dict[str, str]:
    """Write a unit again with its merged ranks and publish its final record; return a line."""
    name = str(item["name"])
    record = folder.records_one("units", name)
    scattered = f"_job/scratch/{item['file']}"
    bounds = int(item["start"]), int(item["stop"])
    ranked = read_rows(folder.store, scattered, bounds, RANKED)
    table = folder.read_table("data", record["data"])
    out = apply_ranks(table, names.rank, ranked)
    copies = copies_in(ranked)
    gone = table.num_rows - out.num_rows
    counts = dict(record["counts"])
    for kind in ("rows", "pairs"):
        counts[f"{kind}_out"] -= gone
        counts[f"{kind}_cut"] += gone - len(copies)
        counts[f"{kind}_quarantined"] += len(copies)
    data = folder.write_parquet("data", name, out) if out.num_rows else None
    final = {**record, "counts": counts, "data": data}
    if copies:
        final |= _set_copies_aside(folder, name, record, table, copies, names)
    if not folder.publish("final", name, final):
        folder.drop("data", data)
        if copies:
            folder.drop("quarantine", final["aside"])
        final = folder.records_one("final", name)
    return {"line": json.dumps({"name": name, "record": final})}


def _set_copies_aside(
    folder: JobFolder,
    name: str,
    record: dict[str, Any],
    table: pa.Table,
    copies: list[int],
    names: ColumnNames,
) -> dict[str, Any]:
    """Write the unit's rows set aside again, with its copies; return what changes in its record."""
    body = folder.store.read(attempt_key("sidecars", record["sidecar"]))
    rows = np.frombuffer(body, SCORED_WITH_DOCUMENT)["row"][copies].tolist()
    lines = copies_table(table, copies, rows, record["file"], names)
    if record["aside"]:
        former = folder.read_table("quarantine", record["aside"])
        lines = pa.concat_tables([former, lines])
    reasons = dict(record["reasons"])
    reasons[DUPLICATE] = reasons.get(DUPLICATE, 0) + len(copies)
    return {"aside": folder.write_parquet("quarantine", name, lines), "reasons": reasons}
