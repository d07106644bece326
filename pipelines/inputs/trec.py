"""Reads TREC runs line by line.

Ours, because `ir_measures.read_trec_run` drops the rank and names no line that is broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import TextIOWrapper
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from pipelines.columns import ColumnNames
from pipelines.inputs.paths import open_filesystem
from rerank_core import InvalidRequest

# Lines of a TREC run in one row group.
_RUN_LINES = 131_072


class Hit(NamedTuple):
    """One line of a TREC run."""

    query_id: str
    doc_id: str
    rank: int
    score: float


def trec_batches(path: str, names: ColumnNames) -> Iterator[pa.RecordBatch]:
    """Yield a TREC run as rows of ids, with the rank and score that it gives them."""
    kinds: dict[str, pa.DataType] = {
        names.query_id: pa.string(),
        names.doc_id: pa.string(),
        "first_rank": pa.int32(),
        "first_score": pa.float64(),
    }
    hits = read_trec_run(path)
    while block := list(islice(hits, _RUN_LINES)):
        columns = zip(zip(*block, strict=True), kinds.values(), strict=True)
        arrays = [pa.array(column, kind) for column, kind in columns]
        yield pa.record_batch(arrays, schema=pa.schema(kinds))


def _decoded(file: TextIOWrapper, path: str) -> Iterator[str]:
    try:
        yield from file
    except UnicodeDecodeError:
        raise InvalidRequest(f"{path} is not UTF-8, as a TREC run is", "input") from None


def read_trec_run(path: str) -> Iterator[Hit]:
    """Yield the hits of a TREC run; InvalidRequest names the line that is none.

    `path` is a local path or an address that pyarrow knows.
    """
    filesystem, inner = open_filesystem(path)
    stream: Any = filesystem.open_input_stream(inner)
    with TextIOWrapper(stream, encoding="utf-8") as file:
        for number, line in enumerate(_decoded(file, path), start=1):
            parts = line.split()
            if len(parts) != 6:
                raise InvalidRequest(f"{path}:{number}: a TREC run line has 6 fields", "input")
            try:
                yield Hit(parts[0], parts[2], int(parts[3]), float(parts[4]))
            except ValueError:
                raise InvalidRequest(
                    f"{path}:{number}: rank and score of a TREC run are numbers", "input"
                ) from None
