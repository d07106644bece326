"""Run form: input rows hold ids only, and their texts are looked up in two tables.

Both tables are read once and shared by all readers of a machine, so they must fit its memory;
rows whose id has no text go on with a null text and are set aside like any other.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.columns import ColumnNames
from pipelines.config import RerankJobConfig
from pipelines.inputs.conversion import as_batches, is_parquet
from pipelines.inputs.footers import reason_of
from pipelines.inputs.ids import id_text, plain_ids
from pipelines.inputs.lake.fields import columns_of_table
from pipelines.inputs.listing import InputFile, Look, list_inputs
from pipelines.inputs.paths import open_filesystem
from pipelines.inputs.reading import FileChanged
from pipelines.retries import retried
from rerank_core import InvalidRequest

# Shared memory of a machine is often a third of it; more than this belongs in a join beforehand.
MAX_BYTES = 8 << 30


@dataclass(frozen=True, slots=True)
class Texts:
    """Two tables of (id, text): the queries' and the documents'; a hash that changes with them."""

    queries: pa.Table
    documents: pa.Table
    digest: str = ""


def load_texts(
    config: RerankJobConfig, versions: Mapping[str, int] | None = None, look: Look = list_inputs
) -> Texts | None:
    """Read both tables, or return None for an input that has its texts.

    Tables of a lake are read at these versions; `look` lists their files. Raises InvalidRequest
    when only one is given, an id is there twice, or they are too large.
    """
    if not (config.queries or config.documents):
        return None
    if not (config.queries and config.documents):
        raise InvalidRequest("give both --queries and --documents, or neither", "queries")
    names = config.names
    files = look((config.queries,), versions).files
    queries = _read_texts(config.queries, files, names.query_id, names.query)
    files = look((config.documents,), versions).files
    documents = _read_texts(config.documents, files, names.doc_id, names.text)
    texts = Texts(queries, documents, _digest(queries, documents))
    size = texts.queries.nbytes + texts.documents.nbytes
    if size > MAX_BYTES:
        raise InvalidRequest(
            f"queries and documents take {size / 2**30:.1f} GiB in memory, more than"
            f" {MAX_BYTES >> 30}; join them to the candidates beforehand",
            "documents",
        )
    return texts


def refuse_other_texts(texts: Texts | None, digest: str) -> None:
    """Raise FileChanged where the tables are not those with which the job began."""
    if texts and texts.digest != digest:
        raise FileChanged("--queries or --documents have changed since the plan was made")


def _read_texts(path: str, files: list[InputFile], identity: str, text: str) -> pa.Table:
    """Return ids in order, the place of each one's text, and the texts as they came."""
    parts = []
    for file in files:
        try:
            parts.append(_columns_of(file, ColumnNames(doc_id=identity, text=text)))
        except (pa.ArrowException, OSError) as error:
            raise InvalidRequest(f"{file.path}: {reason_of(error)}", "documents") from None
    for name in (identity, text):
        if any(pa.types.is_nested(part.schema.field(name).type) for part in parts):
            raise InvalidRequest(f"{path}: column {name} must be text or a plain value", "names")
    ids = _one([_as_text(part[identity]) for part in parts], pa.large_string())
    columns = [plain_ids(part[text]) for part in parts]
    # Large: taking rows of more than 2 GiB of texts overflows the offsets of a plain string.
    coded = any(pa.types.is_binary(c.type) or pa.types.is_large_binary(c.type) for c in columns)
    texts = _one(columns, pa.large_binary() if coded else pa.large_string())
    table = pa.table({"id": ids, "text": texts}).filter(ids.is_valid()).combine_chunks()
    places: Any = pc.sort_indices(table["id"])
    ids = table["id"].take(places)
    if table.num_rows > 1 and pc.any(pc.equal(ids[1:], ids[:-1])).as_py():
        raise InvalidRequest(f"{path}: an id of {identity} is there twice", "documents")
    return pa.table({"id": ids, "place": places, "text": table["text"]})


def _digest(*tables: pa.Table) -> str:
    """Return a hash of what was read: ids and texts, in the order of ids."""
    sink = _Hash()
    for table in tables:
        with pa.ipc.new_stream(pa.PythonFile(sink, "w"), table.schema) as writer:
            writer.write_table(table)
    return sink.found.hexdigest()[:16]


class _Hash(io.RawIOBase):
    """A file that only hashes what is written."""

    def __init__(self) -> None:
        self.found = hashlib.sha256()

    def writable(self) -> bool:
        """Say yes, as a file that can be written."""
        return True

    def write(self, body: Any) -> int:
        """Take the bytes into the hash."""
        self.found.update(body)
        return len(body)


def _one(columns: list[Any], kind: Any) -> Any:
    chunks: list[Any] = [chunk for column in columns for chunk in column.cast(kind).chunks]
    return pa.chunked_array(chunks, kind)


def _columns_of(file: InputFile, names: ColumnNames) -> pa.Table:
    """Return ids and texts of one file of a table; pyarrow's errors where it has none."""
    wanted = [names.doc_id, names.text]
    if file.rows or not is_parquet(file):
        return pa.Table.from_batches(as_batches(file, names)).select(wanted)
    filesystem, inner = open_filesystem(file.path)
    called = wanted
    if file.table is not None:
        schema = pq.read_schema(inner, filesystem=filesystem)
        own, *_ = columns_of_table(file.path, schema, file.table, file.partition)
        called = [dict(own).get(name, name) for name in wanted]
    read = partial(pq.read_table, inner, columns=called, filesystem=filesystem)
    return retried(read, file.path).select(called).rename_columns(wanted)


def _as_text(column: Any) -> Any:
    """Return ids as people write them, so that they meet in tables of two types."""
    column = plain_ids(column)
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        shown = [None if value is None else id_text(value) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(shown, pa.large_string())])
    if pa.types.is_fixed_size_binary(column.type):
        return _as_text(column.cast(pa.large_binary()))
    return column.cast(pa.large_string())


def join_texts(rows: pa.Table, texts: Texts, names: ColumnNames) -> pa.Table:
    """Return the rows with the columns query and text; null where an id is unknown."""
    for identity, text, table in (
        (names.query_id, names.query, texts.queries),
        (names.doc_id, names.text, texts.documents),
    ):
        places = _places(_as_text(rows[identity]), table)
        rows = rows.append_column(text, table["text"].take(places))
    return rows


def _places(wanted: Any, table: pa.Table) -> Any:
    """Return where the text of each id stands, or null: a binary search for all of them at once.

    `pc.index_in` would build a hash table of all ids for each unit.
    """
    ids: Any = table["id"].combine_chunks()
    low, high = np.zeros(len(wanted), np.int64), np.full(len(wanted), len(ids), np.int64)
    wanted = wanted.combine_chunks()
    while (low < high).any():
        middle = (low + high) // 2
        below: Any = pc.less(ids.take(np.minimum(middle, len(ids) - 1)), wanted)
        below = below.fill_null(False).to_numpy(zero_copy_only=False) & (low < high)
        low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
    if not len(ids):
        return pa.nulls(len(wanted), pa.int64())
    low = np.minimum(low, len(ids) - 1)
    found: Any = pc.equal(ids.take(low), wanted)
    return pc.if_else(found, table["place"].combine_chunks().take(low), None)
