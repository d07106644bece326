"""Writes the units' rows once more, with their ranks over units, as files of a size readers like.

Neighbouring units become one file with one record, so that a unit costs one read here. Copies that
only other units show are set aside. It does not know Ray; a task may be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.columns import ColumnNames
from pipelines.commits.quarantine import copies_table
from pipelines.commits.records import JobFolder, JobRecords, attempt_key
from pipelines.config import RerankJobConfig
from pipelines.engine import Engine
from pipelines.inputs.pairs import DUPLICATE
from pipelines.inputs.units import Say, unit_name
from pipelines.ranks.bucket import apply_ranks, copies_in
from pipelines.ranks.over_units import moved_ranks
from pipelines.ranks.rows import RANKED, SCORED_WITH_DOCUMENT, Rows, read_rows
from pipelines.ranks.steps import run_step, unit_groups

# Of a file, where the settings do not say.
FILE_BYTES = 256_000_000
# Of a row group, in memory: what a task holds at once, besides the file.
_GROUP_BYTES = 128 << 20
# Units in a file, at most: a task reads them one after the other.
_MOST_UNITS = 256
# What a task must know of a unit's record.
_KNOWN = ("file", "counts", "reasons", "data")


def write_files(
    engine: Engine, folder: JobFolder, records: JobRecords, config: RerankJobConfig, say: Say
) -> JobRecords:
    """Write the rows of the units, in plan order, with new ranks as files of one size.

    Returns the records with those of the new files; `say` is as in ranking over units.
    """
    units: list[dict[str, Any]] = [
        {"place": place, "name": name, **{key: record.get(key) for key in _KNOWN}}
        for place, (name, record) in enumerate(records.units.items())
        if record["data"]
    ]
    moved = moved_ranks(records.scattered)
    sizes = [_bytes_of_rows(unit["data"]) for unit in units]
    items, size = [], config.file_size or FILE_BYTES
    for number, (first, stop) in enumerate(unit_groups(sizes, size, _MOST_UNITS)):
        group = units[first:stop]
        spans = [moved[unit["place"]] for unit in group if unit["place"] in moved]
        output = json.dumps({"units": group, "ranks": _joined(spans)})
        items.append({"name": unit_name(number), "output": output})
    task = partial(write_one, folder=folder, names=config.names)
    return replace(records, final=run_step(engine, folder, say, "final", items, task))


def _bytes_of_rows(data: dict[str, Any]) -> int:
    start, stop = data.get("beside", (0, 0))
    return int(data["bytes"]) - int(stop) + int(start)


def _joined(spans: Iterable[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Return the ranges of bytes, which lie side by side in each file, as one of each file."""
    found = []
    for file, parts in groupby(spans, itemgetter(0)):
        starts, stops = zip(*((start, stop) for _, start, stop in parts), strict=True)
        found.append((file, min(starts), max(stops)))
    return found


@dataclass(slots=True)
class _Group:
    """The units of one file: what changes in their records, and what is set aside."""

    folder: JobFolder
    names: ColumnNames
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    aside: list[pa.Table] = field(default_factory=list)

    def tables(self, units: list[dict[str, Any]], ranked: Rows) -> Iterator[pa.Table]:
        """Yield the rows of each unit with their final ranks."""
        for unit in units:
            body = self.folder.store.read(attempt_key("data", unit["data"]))
            table = pq.read_table(pa.BufferReader(body))
            mine = ranked[
                slice(*np.searchsorted(ranked["unit"], [unit["place"], unit["place"] + 1]))
            ]
            self.changes[unit["name"]] = {}
            yield self._reranked(unit, body, table, mine) if len(mine) else table

    def _reranked(self, unit: dict[str, Any], body: Any, table: pa.Table, mine: Rows) -> pa.Table:
        out = apply_ranks(table, self.names.rank, mine)
        copies = copies_in(mine)
        gone = table.num_rows - out.num_rows
        counts, reasons = dict(unit["counts"]), dict(unit["reasons"])
        for kind in ("rows", "pairs"):
            counts[f"{kind}_out"] -= gone
            counts[f"{kind}_cut"] += gone - len(copies)
            counts[f"{kind}_quarantined"] += len(copies)
        if copies:
            start, stop = unit["data"]["beside"]
            scored = np.frombuffer(memoryview(body)[start:stop], SCORED_WITH_DOCUMENT)
            rows = scored["row"][copies].tolist()
            self.aside.append(copies_table(table, copies, rows, unit["file"], self.names))
            reasons[DUPLICATE] = reasons.get(DUPLICATE, 0) + len(copies)
        self.changes[unit["name"]] = {"counts": counts, "reasons": reasons}
        return out


def write_one(item: dict[str, Any], folder: JobFolder, names: ColumnNames) -> dict[str, str]:
    """Write the rows of a few units into one file and publish its record; return a line."""
    given = json.loads(item["output"])
    parts = [
        read_rows(folder.store, f"_job/scratch/{file}", (start, stop), RANKED)
        for file, start, stop in given["ranks"]
    ]
    name, group = str(item["name"]), _Group(folder, names)
    ranked = np.concatenate([np.zeros(0, RANKED), *parts])
    data = _one_file(folder, name, group.tables(given["units"], ranked))
    record: dict[str, Any] = {"units": group.changes, "data": data, "aside": None}
    if group.aside:
        record["aside"] = folder.write_parquet("quarantine", name, pa.concat_tables(group.aside))
    if not folder.publish("final", name, record):
        folder.drop("data", data)
        folder.drop("quarantine", record["aside"])
        record = folder.records_one("final", name)
    return {"line": json.dumps({"name": name, "record": record})}


def _one_file(folder: JobFolder, name: str, tables: Iterator[pa.Table]) -> dict[str, Any] | None:
    """Write the tables as one file and return its description; None where there are no rows."""
    sink, writer, rows = pa.BufferOutputStream(), None, 0
    for table in _row_groups(tables):
        writer = writer or pq.ParquetWriter(sink, table.schema, compression="zstd")
        writer.write_table(table)
        rows += table.num_rows
    if writer is None:
        return None
    writer.close()
    return {**folder.write_bytes("data", name, ".parquet", sink.getvalue()), "rows": rows}


def _row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for table in tables:
        if table.num_rows:
            held.append(table)
        if sum(one.nbytes for one in held) >= _GROUP_BYTES:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)
