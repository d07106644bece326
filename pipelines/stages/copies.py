"""Counts the documents that their query has twice, by ids alone, before anything is scored.

Slices are read in groups into files cut by bucket of queries, and each bucket is looked through. A
nested row holds all of its query, so there the reading is enough. It does not know Ray.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.columns import ColumnNames
from pipelines.commits.records import JobFolder, attempt_key
from pipelines.engine import Engine, JobContext
from pipelines.inputs.ids import id_values
from pipelines.inputs.listing import InputFile
from pipelines.inputs.pairs import DUPLICATE, extract
from pipelines.inputs.units import Say, Slice, unit_name
from pipelines.ranks.bucket import by_bucket, copies_among, task_rows
from pipelines.ranks.moves import input_order
from pipelines.ranks.rows import SCORED_WITH_DOCUMENT, Copies, Rows, read_rows, scored_rows
from pipelines.ranks.steps import Parts, files_of, publish, read_parts, run_step, unit_groups
from pipelines.ranks.within_unit import query_codes
from pipelines.stages.read import read_tables, slice_items


def count_copies(
    engine: Engine, context: JobContext, slices: list[Slice], files: list[InputFile], say: Say
) -> int:
    """Return how many documents of the slices their query has had before; `say` as in ranking.

    Of slices of a finished output that grows, the documents are known; no row is read again.
    """
    folder, buckets = context.folder, context.buckets or 1
    run = partial(run_step, engine, folder, say)
    slices = slices[context.first_new :]
    rows = [sum(unit.rows for unit in piece.units) for piece in slices]
    groups = [slices[first:stop] for first, stop in unit_groups(rows, task_rows(sum(rows)))]
    items = slice_items(groups, files)
    if context.shape == "nested":
        found = run("copies", items, partial(count_nested, context=context))
    else:
        former = _former_items(context)
        gathered = run("ids", former + items, partial(gather, context=context, buckets=buckets))
        parts = [{"name": unit_name(bucket), "bucket": bucket} for bucket in range(buckets)]
        count = partial(count_bucket, folder=folder, files=files_of(gathered))
        found = run("copies", parts, count)
    return sum(record["copies"] for record in found.values())


def count_nested(item: dict[str, Any], context: JobContext) -> dict[str, str]:
    """Count the copies among each row's candidates."""
    config = context.config
    copies = 0
    for _, table in read_tables(item, config, schema=context.schema):
        found = extract(table, "nested", config.names, config.max_text_chars, copies=False)
        copies += sum(aside.reason == DUPLICATE for aside in found.aside)
    return publish(context.folder, "copies", item["name"], (b"", []), copies=copies)


def _former_items(context: JobContext) -> list[dict[str, Any]]:
    """Return where the ids of a finished output that grows lie, by groups of its files."""
    names = [unit_name(number) for number in range(context.first_new)]
    files = [r["data"] for r in context.folder.records("units", names).values() if r["data"]]
    rows = [file["rows"] for file in files]
    parts = [(attempt_key("data", file), *file["beside"]) for file in files]
    groups = unit_groups(rows, task_rows(sum(rows)))
    return [
        {"name": f"former-{unit_name(n)}", "former": json.dumps(parts[first:stop])}
        for n, (first, stop) in enumerate(groups)
    ]


def gather(item: dict[str, Any], context: JobContext, buckets: int) -> dict[str, str]:
    """Put a group's ids into one file, cut by bucket of queries."""
    if item.get("former") is None:
        return gather_ids(item, context, buckets)
    folder = context.folder
    parts = [
        read_rows(folder.store, key, (start, stop), SCORED_WITH_DOCUMENT)
        for key, start, stop in json.loads(item["former"])
    ]
    rows = np.concatenate([np.zeros(0, SCORED_WITH_DOCUMENT), *parts])
    return publish(folder, "ids", item["name"], by_bucket(rows, buckets))


def gather_ids(item: dict[str, Any], context: JobContext, buckets: int) -> dict[str, str]:
    """Put a group's ids into one file, cut by bucket of queries."""
    names = context.config.names
    # Columns without a name are not read: texts are most of the input.
    ids = ColumnNames(
        query_id=names.query_id, doc_id=names.doc_id, query="", text="", candidates=""
    )
    config = context.config.model_copy(update={"names": ids, "columns": ()})
    wanted = (names.query_id, names.doc_id)
    schema = context.schema and pa.schema([f for f in context.schema if f.name in wanted])
    parts = [_id_rows(table, names) for _, table in read_tables(item, config, schema=schema)]
    rows = np.concatenate([np.zeros(0, SCORED_WITH_DOCUMENT), *parts])
    return publish(context.folder, "ids", item["name"], by_bucket(rows, buckets))


def count_bucket(item: dict[str, Any], folder: JobFolder, files: list[Parts]) -> dict[str, str]:
    """Count the copies in one bucket of queries."""
    copies = copies_among(read_parts(folder, files, int(item["bucket"]), SCORED_WITH_DOCUMENT))
    return publish(folder, "copies", item["name"], (b"", []), copies=copies)


def _id_rows(table: pa.Table, names: ColumnNames) -> Rows:
    there = np.flatnonzero(table[names.query_id].is_valid())
    codes, queries = query_codes(table[names.query_id], there)
    documents = id_values(table.take(there)[names.doc_id])
    raw = np.zeros(len(there), np.float32)
    return scored_rows(codes, queries, raw, input_order(codes), Copies(documents, there))
