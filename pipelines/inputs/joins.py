"""Run form: input rows hold ids only, and their texts are looked up in two tables.

Both tables are read once and shared by all readers of a machine, so they must fit its memory;
rows whose id has no text go on with a null text and are set aside like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.columns import ColumnNames
from pipelines.config import RerankJobConfig
from pipelines.inputs.footers import reason_of
from pipelines.inputs.listing import list_inputs
from pipelines.inputs.paths import open_filesystem
from pipelines.retries import retried
from rerank_core import InvalidRequest

# Shared memory of a machine is often a third of it; more than this belongs in a join beforehand.
MAX_BYTES = 8 << 30


@dataclass(frozen=True, slots=True)
class Texts:
    """Two tables of (id, text): the queries' and the documents'."""

    queries: pa.Table
    documents: pa.Table


def load_texts(config: RerankJobConfig, versions: Mapping[str, int] | None = None) -> Texts | None:
    """Read both tables, or return None for an input that has its texts.

    Tables of a lake are read at these versions. Raises InvalidRequest when only one is given, an id
    is there twice, or they are too large.
    """
    if not (config.queries or config.documents):
        return None
    if not (config.queries and config.documents):
        raise InvalidRequest("give both --queries and --documents, or neither", "queries")
    names = config.names
    texts = Texts(
        _read_texts(config.queries, names.query_id, names.query, versions),
        _read_texts(config.documents, names.doc_id, names.text, versions),
    )
    size = texts.queries.nbytes + texts.documents.nbytes
    if size > MAX_BYTES:
        raise InvalidRequest(
            f"queries and documents take {size / 2**30:.1f} GiB in memory, more than"
            f" {MAX_BYTES >> 30}; join them to the candidates beforehand",
            "documents",
        )
    return texts


def _read_texts(
    path: str, identity: str, text: str, versions: Mapping[str, int] | None
) -> pa.Table:
    parts = []
    for file in list_inputs((path,), versions).files:
        filesystem, inner = open_filesystem(file.path)
        read = partial(pq.read_table, inner, columns=[identity, text], filesystem=filesystem)
        try:
            parts.append(retried(read, file.path))
        except (pa.ArrowException, OSError) as error:
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
