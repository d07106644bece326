"""Delta tables, by their log: which files a version has, and what is more than its files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.inputs.lake.snapshot import (
    EXPORT,
    Snapshot,
    TableFile,
    connection,
    gone,
    missing_extra,
    unreadable,
    values_as_text,
)
from pipelines.inputs.paths import open_filesystem, quoted
from pipelines.inputs.units import INT96_UNIT
from rerank_core import InvalidRequest

# Reader features with which files are rows; deletion vectors and other names are acted on.
_READ = {
    "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "deletionVectors", "columnMapping"
}  # fmt: skip


def delta_snapshot(address: str, options: str = "", version: int | None = None) -> Snapshot:
    """Return a Delta table at this version, or at its newest.

    `options` are those of the address, as pyarrow names them. Raises InvalidRequest for a table
    that is more than its files, with the way out, and for a version that is gone.
    """
    try:
        from deltalake import DeltaTable
    except ImportError:
        raise missing_extra(address, "Delta") from None
    try:
        table: Any = DeltaTable(address, version=version, storage_options=_storage(options))
        _refuse_more_than_files(address, table)
        kept = _vectors(table)
        actions = table.get_add_actions(flatten=True)
        columns = pa.schema(table.schema().to_arrow())
    except InvalidRequest:
        raise
    except Exception as error:  # whatever the library raises, the table cannot be opened
        way_out = "" if version is None else gone(version)
        raise unreadable(address, "Delta", error, way_out) from None
    names = table.metadata().partition_columns
    wanted = {"path", "size_bytes", *(f"partition.{name}" for name in names)}
    found = {name: actions.column(name).to_pylist() for name in wanted & {*actions.schema.names}}
    files = []
    for row, path in enumerate(map(unquote, found.get("path", ()))):
        values = [(name, found[f"partition.{name}"][row]) for name in names]
        where = _absolute(address, path)
        rows = partial(_kept, where, options, kept.pop(path)) if path in kept else None
        size = found["size_bytes"][row]
        files.append(TableFile(where, size, values_as_text(address, values), rows))
    if kept:
        raise InvalidRequest(f"{address} has deletion vectors of files that it has not", "input")
    number = int(table.version())
    return Snapshot(address, number, f"Delta version {number}", columns, files)


def _refuse_more_than_files(address: str, table: Any) -> None:
    features = set(table.protocol().reader_features or ()) - _READ
    if features:
        raise InvalidRequest(
            f"{address} uses {', '.join(sorted(features))}, with which its files are not its rows:"
            f" {EXPORT}",
            "input",
        )


def _vectors(table: Any) -> dict[str, Any]:
    """Return for each file of which rows were deleted, by its path in the log, which are left."""
    if "deletionVectors" not in (table.protocol().reader_features or ()):
        return {}
    vectors = pa.table(table.deletion_vectors())
    paths: list[Any] = vectors["filepath"].to_pylist()
    here = unquote(table.table_uri).rstrip("/") + "/"
    return {
        unquote(path).removeprefix(here): vectors["selection_vector"][row].values
        for row, path in enumerate(paths)
    }


def _kept(path: str, options: str, kept: Any) -> Iterator[pa.RecordBatch]:
    """Yield the rows that are left of a file; a vector may end before the file does."""
    filesystem, inner = open_filesystem(quoted(path) + f"?{options}" * bool(options))
    place = 0
    with filesystem.open_input_file(inner) as source:
        parquet = pq.ParquetFile(source, coerce_int96_timestamp_unit=INT96_UNIT)
        for batch in parquet.iter_batches():
            mask = kept.slice(place, batch.num_rows)
            rest = batch.num_rows - len(mask)
            yield batch.filter(pa.concat_arrays([mask, pa.array([True] * rest, pa.bool_())]))
            place += batch.num_rows


def _absolute(address: str, path: str) -> str:
    """Return where a file lies; a shallow clone's files lie elsewhere and say so."""
    if "://" in path or path.startswith("/"):
        return path.removeprefix("file://")
    return f"{unquote(address) if '://' in address else address}/{path}"


def _storage(options: str) -> dict[str, str]:
    """Return how to reach the store, as Delta's library names it, beside the environment."""
    named = connection(options, region="AWS_REGION", endpoint="AWS_ENDPOINT_URL")
    return named | {"AWS_ALLOW_HTTP": "true"}  # the endpoint's own address says whether it is http
