"""Run form: input rows hold ids only, and their texts are looked up in two tables.

Both tables are read once and shared by all readers of a machine, so they must fit its memory;
rows whose id has no text go on with a null text and are set aside like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.config import ColumnNames, RerankJobConfig
from pipelines.file_listing import InputFile, is_parquet, list_files, open_filesystem
from pipelines.inputs import is_outage, reason_of
from rerank_core import InvalidRequest

# Shared memory of a machine is often a third of it; more than this belongs in a join beforehand.
MAX_BYTES = 8 << 30
# Lines of a TREC run in one row group.
_RUN_LINES = 131_072


@dataclass(frozen=True, slots=True)
class Texts:
    """Two tables of (id, text): the queries' and the documents'."""

    queries: pa.Table
    documents: pa.Table


def load_texts(config: RerankJobConfig) -> Texts | None:
    """Read both tables, or return None for an input that has its texts.

    Raises InvalidRequest when only one is given, an id is there twice, or they are too large.
    """
    if not (config.queries or config.documents):
        return None
    if not (config.queries and config.documents):
        raise InvalidRequest("give both --queries and --documents, or neither", "queries")
    names = config.names
    texts = Texts(
        _read_texts(config.queries, names.query_id, names.query),
        _read_texts(config.documents, names.doc_id, names.text),
    )
    size = texts.queries.nbytes + texts.documents.nbytes
    if size > MAX_BYTES:
        raise InvalidRequest(
            f"queries and documents take {size / 2**30:.1f} GiB in memory, more than"
            f" {MAX_BYTES >> 30}; join them to the candidates beforehand",
            "documents",
        )
    return texts


def _read_texts(path: str, identity: str, text: str) -> pa.Table:
    parts = []
    for file in list_files((path,)):
        filesystem, inner = open_filesystem(file.path)
        try:
            parts.append(pq.read_table(inner, columns=[identity, text], filesystem=filesystem))
        except (pa.ArrowException, OSError) as error:
            if is_outage(error):
                raise
            raise InvalidRequest(f"{file.path}: {reason_of(error)}", "documents") from None
    table = pa.concat_tables(parts, promote_options="permissive")
    # Large: taking rows of more than 2 GiB of texts overflows the offsets of a plain string.
    for name in (identity, text):
        if pa.types.is_nested(table.schema.field(name).type):
            raise InvalidRequest(f"{path}: column {name} must be text or a plain value", "names")
    kind, texts = table.schema.field(text).type, table[text]
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        texts = texts.cast(pa.large_string())
    table = pa.table({"id": _as_text(table[identity]), "text": texts})
    table = table.filter(table["id"].is_valid()).combine_chunks()
    if pc.count_distinct(table["id"]).as_py() != table.num_rows:
        raise InvalidRequest(f"{path}: an id of {identity} is there twice", "documents")
    return table


def _as_text(column: Any) -> Any:
    return column.cast(pa.string())


def join_texts(rows: pa.Table, texts: Texts, names: ColumnNames) -> pa.Table:
    """Return the rows with the columns query and text; null where an id is unknown."""
    for identity, text, table in (
        (names.query_id, names.query, texts.queries),
        (names.doc_id, names.text, texts.documents),
    ):
        places = pc.index_in(_as_text(rows[identity]), value_set=table["id"].combine_chunks())
        rows = rows.append_column(text, table["text"].take(places))
    return rows


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
    with pq.ParquetWriter(sink, schema) as writer:
        for lines in _blocks(source, names):
            writer.write_table(pa.Table.from_pylist(lines, schema=schema))
    storage.create(target, memoryview(sink.getvalue()))


def _blocks(source: str, names: ColumnNames) -> Iterator[list[dict[str, object]]]:
    block: list[dict[str, object]] = []
    filesystem, inner = open_filesystem(source)
    stream: Any = filesystem.open_input_stream(inner)
    with TextIOWrapper(stream, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            parts = line.split()
            if len(parts) != 6:
                raise InvalidRequest(f"{source}:{number}: a TREC run line has 6 fields", "input")
            try:
                rank, score = int(parts[3]), float(parts[4])
            except ValueError:
                raise InvalidRequest(
                    f"{source}:{number}: rank and score of a TREC run are numbers", "input"
                ) from None
            block.append(
                {
                    names.query_id: parts[0],
                    names.doc_id: parts[2],
                    "first_rank": rank,
                    "first_score": score,
                }
            )
            if len(block) == _RUN_LINES:
                yield block
                block = []
    yield block
