"""Joins units' result files into files of a size that readers like. It does not know Ray.

Neighbouring units' files become one, in their order; no row changes. A task may be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.commits.records import JobFolder, JobRecords
from pipelines.engine import Engine
from pipelines.inputs.units import Say, unit_name
from pipelines.ranks.over_units import run_step, unit_groups

# Of a row group, in memory: what a task holds at once.
_GROUP_BYTES = 128 << 20


def pack_files(
    engine: Engine, folder: JobFolder, records: JobRecords, say: Say, size: int
) -> JobRecords:
    """Write the files of the units, in plan order, as files of about `size` bytes.

    Returns the records with those of the new files; `say` is as in ranking over units.
    """
    files = [(name, r["data"]) for name, r in records.newest().items() if r["data"]]
    groups = unit_groups([data["bytes"] for _, data in files], size) if files else []
    items = [
        {"name": unit_name(number), "files": json.dumps(files[first:stop])}
        for number, (first, stop) in enumerate(groups)
    ]
    packed = run_step(engine, folder, say, "packed", items, partial(pack_one, folder=folder))
    return replace(records, packed=packed)


def pack_one(item: dict[str, Any], folder: JobFolder) -> dict[str, str]:
    """Write the rows of a few units' files into one and publish its record; return a line."""
    name, files = str(item["name"]), json.loads(item["files"])
    sink, rows = pa.BufferOutputStream(), 0
    tables = (folder.read_table("data", data) for _, data in files)
    first = next(tables)
    with pq.ParquetWriter(sink, first.schema, compression="zstd") as writer:
        for table in _row_groups(chain([first], tables)):
            writer.write_table(table)
            rows += table.num_rows
    data = {**folder.write_bytes("data", name, ".parquet", sink.getvalue()), "rows": rows}
    record: dict[str, Any] = {"units": [unit for unit, _ in files], "data": data}
    if not folder.publish("packed", name, record):
        folder.drop("data", data)
        record = folder.records_one("packed", name)
    return {"line": json.dumps({"name": name, "record": record})}


def _row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(one.nbytes for one in held) >= _GROUP_BYTES:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)
