"""The account of rows that got no score: where they are and why, never what they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from pipelines.columns import ColumnNames, Shape
from pipelines.inputs.ids import text_of_id
from pipelines.inputs.pairs import DUPLICATE, Aside
from pipelines.inputs.units import Unit

_TYPES: dict[str, pa.DataType] = {
    "file": pa.string(),
    "row": pa.int64(),
    "candidate": pa.int32(),
    "query_id": pa.string(),
    "doc_id": pa.string(),
    "stage": pa.string(),
    "reason": pa.string(),
}
SCHEMA = pa.schema(_TYPES)


def aside_table(
    rows: Sequence[tuple[str, Aside]],
    table: pa.Table,
    unit: Unit,
    path: str,
    shape: Shape,
    names: ColumnNames,
) -> pa.Table:
    """Return one line per row (or candidate) set aside; `rows` pairs each with its stage.

    `row` counts from 0 within the input file. Ids are copied as text, documents never.
    """
    lines = []
    for stage, aside in sorted(rows, key=lambda item: (item[1].row, item[1].candidate or 0)):
        doc_id = text_of_id(table, names.doc_id, aside.row) if shape == "pairs" else None
        lines.append(
            {
                "file": path,
                "row": unit.start + aside.row,
                "candidate": aside.candidate,
                "query_id": text_of_id(table, names.query_id, aside.row),
                "doc_id": doc_id,
                "stage": stage,
                "reason": aside.reason,
            }
        )
    return pa.Table.from_pylist(lines, schema=SCHEMA)


def copies_table(
    table: pa.Table, places: Sequence[int], rows: Sequence[int], path: str, names: ColumnNames
) -> pa.Table:
    """Return one line per copy that only the merge of queries over units could find.

    `table` is the unit's result; an id whose column was dropped from it stays null.
    """
    there = table.schema.names
    lines = [
        {
            "file": path,
            "row": row,
            "candidate": None,
            "query_id": text_of_id(table, names.query_id, p) if names.query_id in there else None,
            "doc_id": text_of_id(table, names.doc_id, p) if names.doc_id in there else None,
            "stage": "merge",
            "reason": DUPLICATE,
        }
        for p, row in zip(places, rows, strict=True)
    ]
    return pa.Table.from_pylist(lines, schema=SCHEMA)


def count_reasons(rows: Sequence[tuple[str, Aside]]) -> dict[str, int]:
    """Return how many were set aside for each reason."""
    return dict(Counter(aside.reason for _, aside in rows))
