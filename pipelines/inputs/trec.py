"""Reads TREC runs line by line, and makes them Parquet so that a job can cut them into units.

Ours, because `ir_measures.read_trec_run` drops the rank and names no line that is broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.columns import ColumnNames
from pipelines.commits import store
from pipelines.inputs.listing import InputFile, is_parquet, open_filesystem
from rerank_core import InvalidRequest

# Lines of a TREC run in one row group.
_RUN_LINES = 131_072


class Hit(NamedTuple):
    """One line of a TREC run."""

    query_id: str
    doc_id: str
    rank: int
    score: float


def as_parquet(files: list[InputFile], folder: Path, names: ColumnNames) -> list[InputFile]:
    """Return the files, TREC runs among them written as Parquet into `folder` first."""
    done = []
    for number, file in enumerate(files):
        if is_parquet(file.path):
            done.append(file)
            continue
        path = folder / f"run-{number}.parquet"
        if not path.is_file():
            _convert(file.path, path, names)
        done.append(InputFile(str(path), path.stat().st_size))
    return done


def _convert(source: str, target: Path, names: ColumnNames) -> None:
    kinds: dict[str, pa.DataType] = {
        names.query_id: pa.string(),
        names.doc_id: pa.string(),
        "first_rank": pa.int32(),
        "first_score": pa.float64(),
    }
    schema = pa.schema(kinds)
    sink = pa.BufferOutputStream()
    hits = read_trec_run(source)
    with pq.ParquetWriter(sink, schema) as writer:
        while block := list(islice(hits, _RUN_LINES)):
            columns = [
                pa.array(column, kind)
                for column, kind in zip(zip(*block, strict=True), kinds.values(), strict=True)
            ]
            writer.write_table(pa.table(columns, schema=schema))
    store.create(target, memoryview(sink.getvalue()))


def read_trec_run(path: str) -> Iterator[Hit]:
    """Yield the hits of a TREC run; InvalidRequest names the line that is none.

    `path` is a local path or an address that pyarrow knows.
    """
    filesystem, inner = open_filesystem(path)
    stream: Any = filesystem.open_input_stream(inner)
    with TextIOWrapper(stream, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            parts = line.split()
            if len(parts) != 6:
                raise InvalidRequest(f"{path}:{number}: a TREC run line has 6 fields", "input")
            try:
                yield Hit(parts[0], parts[2], int(parts[3]), float(parts[4]))
            except ValueError:
                raise InvalidRequest(
                    f"{path}:{number}: rank and score of a TREC run are numbers", "input"
                ) from None
