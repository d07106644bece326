"""Reads the footers of input files: row groups, schema, and a hash that says a file is the same.

Everything that can be known from footers is checked here, before any model is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.columns import Shape
from pipelines.commits.store import at_once
from pipelines.config import RerankJobConfig
from pipelines.inputs.lake.fields import columns_of_table, typed_by_tables
from pipelines.inputs.listing import InputFile
from pipelines.inputs.partitions import partition_type
from pipelines.inputs.schemas import find_shape
from pipelines.inputs.unify import fitted, unify
from pipelines.inputs.units import INT96_UNIT, RowGroup, Say, silent, told
from pipelines.retries import first_line, retried
from rerank_core import InvalidRequest

# Bytes behind a footer, its length and a word; and how much of a file's end is read at once.
_END, _TAIL = 8, 64 << 10
_ENCRYPTED = "encrypted: give a copy that is not, a job has no keys"


class Footers(NamedTuple):
    """What footers say: files with their row groups, the shape, and the columns of the job.

    `schema` has the columns that are needed, as `read_units` gives them for every file;
    `left_out` names the others.
    """

    files: list[InputFile]
    shape: Shape
    schema: pa.Schema
    left_out: list[str]


def read_footers(
    files: list[InputFile],
    config: RerankJobConfig,
    *,
    former: tuple[str, pa.Schema] | None = None,
    say: Say = silent,
) -> Footers:
    """Read every footer. A file without a readable one comes back with `bad` saying why.

    `former` has a file and the schema of rows to which these are added. Raises InvalidRequest when
    no file can be read, when a column is missing, or when two files differ in earnest.
    """
    read = at_once(partial(_read_footer, config=config), files, told(say, "footers", len(files)))
    good = [(file, schema) for file, schema in read if schema is not None]
    if not good and former is None:
        raise InvalidRequest(f"no input file can be read; {read[0][0].given}: {read[0][0].bad}")
    named = [*([former] if former else []), *((file.given, schema) for file, schema in good)]
    unified = unify(named, partial(config.names.reads, kept=config.columns), config.names.needed)
    unified = typed_by_tables(unified, (file.table for file in files))
    there = {field.name: field for field in named[0][1]} | {field.name: field for field in unified}
    shape = find_shape(pa.schema(there.values()), config)
    for file, mine in good:
        _refuse_times_out_of_range(file, mine, unified)
    others = {name for _, schema in good for name in schema.names} - set(unified.names)
    return Footers([file for file, _ in read], shape, unified, sorted(others))


def _refuse_times_out_of_range(file: InputFile, mine: pa.Schema, unified: pa.Schema) -> None:
    """Raise InvalidRequest where the footer knows a time that the unit of other files cannot hold.

    A footer without statistics does not; then the rows say it when they are read.
    """
    names = {
        dict(file.columns).get(field.name, field.name): field
        for field in unified
        if field.name in mine.names
        and pa.types.is_timestamp(field.type)
        and mine.field(field.name).type not in (field.type, pa.null())
    }
    if not names:
        return
    with file.open() as source:
        meta = retried(lambda: pq.read_metadata(source), file.path)
    for column in _columns(meta):
        found = column.statistics
        if column.path_in_schema in names and found is not None and found.has_min_max:
            field = names[column.path_in_schema]
            ends = pa.array([found.min_raw, found.max_raw], pa.int64())
            times = ends.cast(mine.field(field.name).type)
            fitted(pa.table([times], [field.name]), pa.schema([field]), file.given)


def _whole_schema(file: InputFile, parquet: pq.ParquetFile) -> tuple[InputFile, pa.Schema]:
    """Return the file's columns, and behind them those that only its folders name."""
    schema = parquet.schema_arrow
    if file.table is not None:
        own, others, schema = columns_of_table(file.path, schema, file.table, file.partition)
        return replace(file, table=None, columns=own, partition=others), schema
    for name, value in file.partition:
        if name in schema.names:
            if _always(parquet.metadata, name) == str(value):
                continue  # Polars leaves the column in the file
            raise InvalidRequest(
                f"file {file.given} has a column {name}, and a folder above it says {name}={value}:"
                " rename one of them",
                "input",
            )
        schema = schema.append(pa.field(name, partition_type(value)))
    return file, schema


def _columns(meta: pq.FileMetaData) -> Iterator[Any]:
    for group in (meta.row_group(number) for number in range(meta.num_row_groups)):
        yield from (group.column(number) for number in range(group.num_columns))


def _always(meta: pq.FileMetaData, name: str) -> str | None:
    """Return what a column says in all rows, as text; None where the footer cannot tell."""
    values: set[str | None] = set()
    for column in _columns(meta):
        if column.path_in_schema == name:
            found = column.statistics
            known = found is not None and found.has_min_max and found.null_count == 0
            values |= {str(found.min), str(found.max)} if known else {"", None}
    return values.pop() if len(values) == 1 else None


def _read_footer(file: InputFile, config: RerankJobConfig) -> tuple[InputFile, pa.Schema | None]:
    try:
        return retried(lambda: _footer_of(file, config), file.path)
    except PermissionError:
        raise InvalidRequest(f"{file.given}: no permission to read it", "input") from None
    except (pa.ArrowException, OSError) as error:
        return replace(file, bad=reason_of(error)), None


def _footer_of(file: InputFile, config: RerankJobConfig) -> tuple[InputFile, pa.Schema]:
    with file.open() as source:
        body = _footer(source)
    parquet = pq.ParquetFile(pa.BufferReader(body), coerce_int96_timestamp_unit=INT96_UNIT)
    meta = parquet.metadata
    if meta.serialized_size != len(body) - _END:
        raise pa.ArrowInvalid(_ENCRYPTED)  # signed: to look at a column may end the process
    file, schema = _whole_schema(file, parquet)
    # Not the footer itself: those of many wide files do not fit in memory.
    nested = "" if config.queries else config.names.candidates
    groups = _row_groups(meta, dict(file.columns).get(nested, nested))
    return replace(file, footer=_hash(body), groups=groups), schema


def reason_of(error: Exception) -> str:
    """Return a short reason for the account, never longer than a line."""
    if isinstance(error, FileNotFoundError):
        return "missing"
    if "encrypted" in str(error) or "decrypt" in str(error):
        return _ENCRYPTED
    return f"unreadable: {first_line(error)}"


def _footer(source: Any) -> bytes:
    """Return the footer of an open file and what is behind it; of most files in one read."""
    size = source.size()
    tail: bytes = source.read_at(min(size, _TAIL), max(0, size - _TAIL))
    length = int.from_bytes(tail[-_END:-4], "little") + _END
    if len(tail) < length <= size:
        tail = source.read_at(length, size - length)
    return tail[-length:]


def footer_hash(source: Any) -> str:
    """Return a hash of an open Parquet file's footer, which changes with the file."""
    return _hash(_footer(source))


def _hash(footer: bytes) -> str:
    return hashlib.sha256(footer).hexdigest()[:16]


def _row_groups(meta: pq.FileMetaData, candidates: str) -> tuple[RowGroup, ...]:
    """Return rows, pairs and bytes of each row group; pairs are entries of a candidates list."""
    leaves = [meta.schema.column(n).path for n in range(meta.num_columns if candidates else 0)]
    wanted = [n for n, path in enumerate(leaves) if path.startswith(f"{candidates}.")]
    groups = []
    for number in range(meta.num_row_groups):
        group = meta.row_group(number)
        pairs = group.column(wanted[0]).num_values if wanted else group.num_rows
        groups.append(RowGroup(group.num_rows, pairs, group.total_byte_size))
    return tuple(groups)
