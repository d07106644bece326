"""A finished result in other forms. Each file appears whole or not at all.

A TREC run has a line `query_id Q0 doc_id rank score tag` per document. JSON Lines, for small
results, have a row a line, in input order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa

from pipelines.columns import ColumnNames
from pipelines.commits.store import Store
from pipelines.commits.verify import finished_manifest, open_result
from pipelines.inputs.ids import id_text
from pipelines.reports.side_files import whole
from rerank_core import InvalidRequest

_TAG = "ray-rerank"


@contextmanager
def _written(path: Path, form: str, option: str) -> Iterator[BinaryIO]:
    """Yield a file to write to; InvalidRequest for what cannot be text."""
    try:
        with whole(path) as temporary, temporary.open("wb") as file:
            yield file
    except UnicodeDecodeError:
        raise InvalidRequest(f"{form} that is not UTF-8", option) from None


def write_trec_run(store: Store, path: Path, names: ColumnNames) -> None:
    """Write the run of the finished job in `store`. InvalidRequest where ids are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not finished_manifest(store)["files"]:
        path.write_bytes(b"")
        return
    dataset = open_result(str(store))
    nested = names.candidates in dataset.schema.names
    wanted = (
        [names.query_id, names.candidates]
        if nested
        else [names.query_id, names.doc_id, names.rank, names.score]
    )
    missing = [name for name in wanted if name not in dataset.schema.names]
    if missing:
        raise InvalidRequest(f"a TREC run needs the column {missing[0]} in the output", "columns")
    with _written(path, "a TREC run cannot hold an id", "trec_run") as file:
        for batch in dataset.to_batches(columns=wanted):
            file.writelines(line.encode() for line in _lines(batch, names, nested))


def _lines(batch: pa.RecordBatch, names: ColumnNames, nested: bool) -> Iterator[str]:
    for row in batch.to_pylist():
        query = _one_word(row[names.query_id])
        for hit in row[names.candidates] if nested else (row,):
            document = _one_word(hit[names.doc_id])
            yield f"{query} Q0 {document} {hit[names.rank]} {hit[names.score]:.9g} {_TAG}\n"


def _one_word(value: object) -> str:
    """A TREC run is split at white space; an id that has some would move its fields."""
    return "_".join(id_text(value).split())


def write_json_lines(store: Store, path: Path) -> None:
    """Write the rows of the finished job in `store`.

    Bytes are text as in a TREC run, times are ISO 8601, decimals text, and no number is null.
    """
    with _written(path, "JSON Lines cannot hold text", "json_lines") as file:
        for batch in open_result(str(store)).to_batches():
            file.writelines(msgspec.json.encode(_plain(row)) + b"\n" for row in batch.to_pylist())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return id_text(value) if isinstance(value, bytes) else value
