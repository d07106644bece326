"""A finished result as a TREC run: one line `query_id Q0 doc_id rank score tag` per document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipelines.columns import ColumnNames
from pipelines.commits.store import Store
from pipelines.commits.verify import finished_manifest, open_result
from pipelines.inputs.ids import id_text
from pipelines.reports.side_files import whole
from rerank_core import InvalidRequest

_TAG = "ray-rerank"


def write_trec_run(store: Store, path: Path, names: ColumnNames) -> None:
    """Write the run of the finished job in `store`; the file appears whole or not at all."""
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
    try:
        with whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            for batch in dataset.to_batches(columns=wanted):
                file.writelines(_lines(batch, names, nested))
    except UnicodeDecodeError:
        raise InvalidRequest("a TREC run cannot hold an id that is not UTF-8", "trec_run") from None


def _lines(batch: pa.RecordBatch, names: ColumnNames, nested: bool) -> Iterator[str]:
    for row in batch.to_pylist():
        query = _one_word(row[names.query_id])
        for hit in row[names.candidates] if nested else (row,):
            document = _one_word(hit[names.doc_id])
            yield f"{query} Q0 {document} {hit[names.rank]} {hit[names.score]:.9g} {_TAG}\n"


def _one_word(value: object) -> str:
    """A TREC run is split at white space; an id that has some would move its fields."""
    return "_".join(id_text(value).split())
