"""Makes Parquet of JSON Lines, CSV, Arrow files and TREC runs, so that they can be cut into units.

The driver converts them one by one with pyarrow's own readers, block by block; ids and texts of CSV
are text as they stand. It does not know what a job does with the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from pipelines.columns import ColumnNames
from pipelines.commits.store import Store
from pipelines.config import RerankJobConfig
from pipelines.inputs.listing import InputFile, open_filesystem
from pipelines.inputs.trec import trec_batches
from pipelines.retries import first_line
from rerank_core import InvalidRequest

_COMPRESSED = (".gz", ".zst", ".bz2", ".lz4")
_KINDS = {
    ".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "csv",
    ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow", ".arrows": "arrow",
}  # fmt: skip


def as_parquet(files: list[InputFile], store: Store, config: RerankJobConfig) -> list[InputFile]:
    """Return the files, those that are no Parquet written as Parquet into the job's store first.

    A file without a known suffix is a TREC run where texts are looked up, else Parquet.
    """
    done = []
    for number, file in enumerate(files):
        kind = kind_of(file.path) or ("trec" if config.queries else "parquet")
        if kind == "parquet":
            done.append(file)
            continue
        key = f"_job/input/{number}.parquet"
        if store.size(key) is None:
            store.create(key, _converted(file.path, kind, config.names))
        done.append(replace(file, path=store.address(key), size=store.size(key) or 0))
    return done


def kind_of(address: str) -> str:
    """Return the kind of a file by its suffix; empty for a suffix that says nothing."""
    path = address.partition("?")[0] if "://" in address else address
    for suffix in _COMPRESSED:
        path = path.removesuffix(suffix)
    suffix = Path(path).suffix.lower()
    return "parquet" if suffix in (".parquet", ".parq", ".pq") else _KINDS.get(suffix, "")


def _converted(source: str, kind: str, names: ColumnNames) -> memoryview:
    sink = pa.BufferOutputStream()
    writer: Any = None
    try:
        for batch in _batches(source, kind, names):
            writer = writer or pq.ParquetWriter(sink, batch.schema, compression="zstd")
            writer.write_batch(batch)
    except pa.ArrowException as error:
        raise InvalidRequest(
            f"{source}: {_without_values(error)}; write it as Parquet, or all lines alike",
            "input",
        ) from None
    if writer is None:
        raise InvalidRequest(f"{source} has no rows", "input")
    writer.close()
    return memoryview(sink.getvalue()).cast("B")


def _without_values(error: Exception) -> str:
    """Return what a reader says of a line, not what the line says."""
    return first_line(error).partition(" conversion error")[0].partition(": invalid value")[0][:80]


def _batches(source: str, kind: str, names: ColumnNames) -> Iterator[pa.RecordBatch]:
    if kind == "trec":
        yield from trec_batches(source, names)
        return
    filesystem, inner = open_filesystem(source)
    if kind == "arrow":
        with filesystem.open_input_file(inner) as file:
            yield from _arrow(file)
        return
    stream: Any = filesystem.open_input_stream(inner)  # unpacks by the suffix
    with stream:
        if kind == "json":
            yield from pyarrow.json.open_json(stream)
            return
        texts = (names.query_id, names.query, names.doc_id, names.text)
        options = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(texts, pa.string()), strings_can_be_null=True
        )
        tabs = pyarrow.csv.ParseOptions(
            delimiter="\t" if ".tsv" in source.lower() else ",", newlines_in_values=True
        )
        yield from pyarrow.csv.open_csv(stream, parse_options=tabs, convert_options=options)


def _arrow(file: Any) -> Iterator[pa.RecordBatch]:
    try:
        reader = pa.ipc.open_file(file)
    except pa.ArrowInvalid:
        file.seek(0)
        yield from pa.ipc.open_stream(file)
        return
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)
