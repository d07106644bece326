"""What shape the input files have, whether it can be reranked, and how to read a slice of them.

Everything that can be known from footers is checked here, before any model is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config import ColumnNames, RerankJobConfig, Shape
from pipelines.file_listing import InputFile, PartitionValue, open_filesystem
from pipelines.units import RowGroup, Slice, Unit
from rerank_core import InvalidRequest

_FOOTER_THREADS = 16
_STORE_ERRORS = ("AWS Error", "google::cloud::Status", "Azure Error")


class FileChanged(InvalidRequest):
    """An input file is not the one that the plan was made from."""


def read_footers(
    files: list[InputFile], config: RerankJobConfig
) -> tuple[list[InputFile], Shape, pa.Schema]:
    """Read every footer; return the files with their row groups, the shape, and the schema.

    A file without a readable footer comes back with `bad` saying why. Raises InvalidRequest when
    no file can be read, when a column is missing, or when two files differ in their columns.
    """
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        read = list(pool.map(_read_footer, files))
    good = [(file, meta) for file, meta in read if meta is not None]
    if not good:
        raise InvalidRequest(f"no input file can be read; {read[0][0].path}: {read[0][0].bad}")
    schema = _whole_schema(*good[0])
    shape = find_shape(schema, config)
    done = []
    for file, meta in read:
        if meta is not None:
            _check_same(schema, _whole_schema(file, meta), good[0][0].path, file.path)
            file = replace(file, groups=_row_groups(meta, shape, config.names))
        done.append(file)
    return done, shape, schema


def _whole_schema(file: InputFile, meta: pq.FileMetaData) -> pa.Schema:
    """Return the file's columns, and behind them those that only its folders name."""
    schema = meta.schema.to_arrow_schema()
    for name, value in file.partition:
        if name not in schema.names:
            schema = schema.append(pa.field(name, _partition_type(value)))
    return schema


def _partition_type(value: PartitionValue) -> pa.DataType:
    return pa.int64() if isinstance(value, int) else pa.string()


def _read_footer(file: InputFile) -> tuple[InputFile, pq.FileMetaData | None]:
    filesystem, path = open_filesystem(file.path)
    try:
        with filesystem.open_input_file(path) as source:
            meta = pq.read_metadata(source)
            return replace(file, footer=_footer_hash(source)), meta
    except PermissionError:
        raise
    except (pa.ArrowException, OSError) as error:
        if is_outage(error):
            raise
        return replace(file, bad=reason_of(error)), None


def is_outage(error: Exception) -> bool:
    """Say whether the storage failed, not the file: such an error is never a bad file."""
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
        return False
    # pyarrow gives what an object store answers no number, only its own words.
    return error.errno is not None or any(words in str(error) for words in _STORE_ERRORS)


def reason_of(error: Exception) -> str:
    """Return a short reason for the account, never longer than a line."""
    if isinstance(error, FileNotFoundError):
        return "missing"
    return f"unreadable: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}"


def _footer_hash(source: Any) -> str:
    size = source.size()
    tail = source.read_at(8, size - 8)
    length = int.from_bytes(tail[:4], "little")
    return hashlib.sha256(source.read_at(length + 8, size - length - 8)).hexdigest()[:16]


def _row_groups(meta: pq.FileMetaData, shape: Shape, names: ColumnNames) -> tuple[RowGroup, ...]:
    inner = names.candidates + "."
    wanted = [
        place
        for place in range(meta.num_columns)
        if shape == "nested" and meta.schema.column(place).path.startswith(inner)
    ]
    groups = []
    for number in range(meta.num_row_groups):
        group = meta.row_group(number)
        pairs = group.column(wanted[0]).num_values if wanted else group.num_rows
        groups.append(RowGroup(group.num_rows, pairs, group.total_byte_size))
    return tuple(groups)


def find_shape(schema: pa.Schema, config: RerankJobConfig) -> Shape:
    """Recognise pairs or nested from the columns; InvalidRequest says what is wrong.

    Where texts are looked up in other tables, the input must not have any.
    """
    names = config.names
    inner: set[str] = set()
    shape: Shape = "pairs"
    if config.queries:
        _require(schema, [names.query_id, names.doc_id])
        for name in (names.query, names.text):
            if name in schema.names:
                raise InvalidRequest(
                    f"the input has a column {name} and --queries would add one; drop either",
                    "queries",
                )
        schema = schema.append(pa.field(names.query, pa.string()))
        schema = schema.append(pa.field(names.text, pa.string()))
    elif names.candidates in schema.names:
        shape = "nested"
        inner = _candidate_fields(schema, names)
    else:
        _require(schema, [names.query_id, names.query, names.doc_id, names.text])
    _refuse_taken(inner if shape == "nested" else set(schema.names), config)
    _refuse_unknown(set(schema.names) | {f"{names.candidates}.{name}" for name in inner}, config)
    _refuse_kinds(schema, shape, names)
    if config.trec_run:
        _require_ids_in_output(shape, config)
    return shape


def _refuse_kinds(schema: pa.Schema, shape: Shape, names: ColumnNames) -> None:
    """Refuse ids and texts that are neither text nor a plain value, and views anywhere."""
    kinds = {name: schema.field(name).type for name in (names.query_id, names.query)}
    if shape == "nested":
        candidate = schema.field(names.candidates).type.value_type
        kinds |= {f"{names.candidates}.{f.name}": f.type for f in candidate}
        inner = (f"{names.candidates}.{name}" for name in (names.doc_id, names.text))
    else:
        inner = (name for name in (names.doc_id, names.text))
        kinds |= {name: schema.field(name).type for name in (names.doc_id, names.text)}
    plain = {names.query_id, names.query, *inner}
    for name, kind in kinds.items():
        if name in plain and pa.types.is_nested(kind):
            raise InvalidRequest(
                f"column {name} must be text or a plain value, not {kind}", "names"
            )
    for field in schema:
        if pa.types.is_string_view(field.type) or pa.types.is_binary_view(field.type):
            raise InvalidRequest(
                f"column {field.name} is a {field.type}, which cannot be reordered yet; write it"
                " as string or binary",
                "input",
            )


def _require_ids_in_output(shape: Shape, config: RerankJobConfig) -> None:
    """Refuse a TREC run of a job whose output would not have the ids that it needs."""
    names = config.names
    kept = config.columns
    if kept is None:
        return
    inner = [name for name in kept if name.startswith(f"{names.candidates}.")]
    document = f"{names.candidates}.{names.doc_id}" if shape == "nested" else names.doc_id
    wanted = [names.query_id, *([document] if shape == "pairs" or inner else [])]
    missing = [name for name in wanted if name not in kept]
    if missing:
        raise InvalidRequest(f"--trec-run needs {', '.join(missing)} among --columns", "columns")


def _candidate_fields(schema: pa.Schema, names: ColumnNames) -> set[str]:
    _require(schema, [names.query_id, names.query])
    kind = schema.field(names.candidates).type
    if not _is_list(kind) or not pa.types.is_struct(kind.value_type):
        raise InvalidRequest(
            f"column {names.candidates} must be a list of structs, not {kind}", "names"
        )
    fields = {kind.value_type.field(i).name for i in range(kind.value_type.num_fields)}
    for name in (names.doc_id, names.text):
        if name not in fields:
            raise InvalidRequest(f"{names.candidates} has no field {name}", "names")
    return fields


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _require(schema: pa.Schema, columns: list[str]) -> None:
    missing = [name for name in columns if name not in schema.names]
    if missing:
        raise InvalidRequest(
            f"input has no column {', '.join(missing)}; it has {', '.join(schema.names)}."
            " Map your names with --names.query-id, --names.text and so on",
            "names",
        )


def _refuse_taken(taken: set[str], config: RerankJobConfig) -> None:
    for option, name in config.added_columns.items():
        if name in taken:
            raise InvalidRequest(
                f"the input already has a {name}; give the new one another name, for example"
                f" --names.{option.replace('_', '-')} rerank_{option}",
                f"names.{option}",
            )


def _refuse_unknown(known: set[str], config: RerankJobConfig) -> None:
    added = set(config.added_columns.values())
    unknown = [name for name in config.columns or () if name not in known | added]
    if unknown:
        raise InvalidRequest(
            f"--columns names {', '.join(unknown)}; the input has {', '.join(sorted(known))}",
            "columns",
        )


def _check_same(first: pa.Schema, other: pa.Schema, first_path: str, path: str) -> None:
    if not first.equals(other):
        raise InvalidRequest(
            f"{path} and {first_path} differ in their columns: {set(first) ^ set(other)}", "input"
        )


def read_units(
    piece: Slice, file: InputFile, config: RerankJobConfig
) -> Iterator[tuple[Unit, pa.Table]]:
    """Decode a slice and yield the rows of each of its units, with bounded memory.

    Columns that nobody needs are not decoded. Raises FileChanged when the file is not the planned
    one; pyarrow's errors when it is corrupt.
    """
    filesystem, path = open_filesystem(file.path)
    with filesystem.open_input_file(path) as source:
        if source.size() != file.size or _footer_hash(source) != file.footer:
            raise FileChanged(f"{file.path} has changed since the plan was made")
        parquet = pq.ParquetFile(source)
        groups = list(range(piece.first, piece.last))
        size = max(unit.rows for unit in piece.units)
        columns = _needed(parquet.schema_arrow.names, config)
        for unit, rows in _cut(parquet.iter_batches(size, groups, columns), piece):
            yield unit, _with_partition(rows, file)


def _needed(there: list[str], config: RerankJobConfig) -> list[str] | None:
    """Return the columns to decode; None for all."""
    if config.columns is None:
        return None
    names = config.names
    wanted = {names.query_id, names.query, names.doc_id, names.text, names.candidates}
    return [name for name in there if name in wanted or name in config.columns]


def _with_partition(rows: pa.Table, file: InputFile) -> pa.Table:
    for name, value in file.partition:
        if name not in rows.schema.names:
            kind = _partition_type(value)
            column = pa.array([value], kind).take(pa.array([0] * rows.num_rows, pa.int32()))
            rows = rows.append_column(pa.field(name, kind), column)
    return rows


def _cut(batches: Iterator[pa.RecordBatch], piece: Slice) -> Iterator[tuple[Unit, pa.Table]]:
    held: list[pa.RecordBatch] = []
    position = piece.start
    waiting = list(piece.units)
    for batch in batches:
        stop = position + batch.num_rows
        while waiting and waiting[0].start < stop:
            unit = waiting[0]
            low = max(unit.start - position, 0)
            held.append(batch.slice(low, min(unit.stop - position, batch.num_rows) - low))
            if unit.stop > stop:
                break
            waiting.pop(0)
            yield unit, pa.Table.from_batches(held)
            held = []
        position = stop
        if not waiting:
            return
    if waiting:
        raise pa.ArrowInvalid("the file ends before its footer says so")
