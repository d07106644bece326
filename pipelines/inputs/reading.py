"""Decodes slices of input files: the rows of each planned unit, with bounded memory.

It does not know what the rows mean.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config import RerankJobConfig
from pipelines.inputs.footers import footer_hash, is_needed
from pipelines.inputs.listing import InputFile
from pipelines.inputs.partitions import partition_type
from pipelines.inputs.unify import fitted
from pipelines.inputs.units import INT96_UNIT, Slice, Unit
from rerank_core import InvalidRequest


class FileChanged(InvalidRequest):
    """An input file is not the one that the plan was made from."""


def read_units(
    piece: Slice, file: InputFile, config: RerankJobConfig, schema: pa.Schema | None = None
) -> Iterator[tuple[Unit, pa.Table]]:
    """Decode a slice and yield the rows of each of its units, with bounded memory.

    Columns that nobody needs are not decoded; the others come as `schema` says. Raises FileChanged
    when the file is not the planned one; pyarrow's errors when it is corrupt.
    """
    with file.open() as source:
        if source.size() != file.size or footer_hash(source) != file.footer:
            raise FileChanged(f"{file.given} has changed since the plan was made")
        parquet = pq.ParquetFile(source, coerce_int96_timestamp_unit=INT96_UNIT)
        groups = list(range(piece.first, piece.last))
        size = max(unit.rows for unit in piece.units)
        there = dict(file.columns) or {name: name for name in parquet.schema_arrow.names}
        wanted = {inner: name for name, inner in there.items() if is_needed(name, config)}
        # For a column `a.b` pyarrow reads the field b of a column a, too.
        for unit, rows in _cut(parquet.iter_batches(size, groups, list(wanted)), piece):
            rows = rows.select([inner for inner in rows.schema.names if inner in wanted])
            rows = rows.rename_columns([wanted[inner] for inner in rows.schema.names])
            yield unit, fitted(_with_partition(rows, file, config), schema, file.given)


def _with_partition(rows: pa.Table, file: InputFile, config: RerankJobConfig) -> pa.Table:
    for name, value in file.partition:
        if name not in rows.schema.names and is_needed(name, config):
            kind = partition_type(value)
            column = pa.array([value], kind).take(pa.array([0] * rows.num_rows, pa.int32()))
            rows = rows.append_column(pa.field(name, kind), column)
    return rows


def _cut(batches: Iterator[pa.RecordBatch], piece: Slice) -> Iterator[tuple[Unit, pa.Table]]:
    held: list[pa.RecordBatch] = []
    position = piece.start
    waiting = list(piece.units)
    for batch in batches:
        stop = position + batch.num_rows
        while waiting and waiting[0].start < stop:
            unit = waiting[0]
            low = max(unit.start - position, 0)
            held.append(batch.slice(low, min(unit.stop - position, batch.num_rows) - low))
            if unit.stop > stop:
                break
            waiting.pop(0)
            yield unit, pa.Table.from_batches(held)
            held = []
        position = stop
        if not waiting:
            return
    if waiting:
        raise pa.ArrowInvalid("the file ends before its footer says so")
