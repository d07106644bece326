"""Reads the footers of input files: row groups, schema, and a hash that says a file is the same.

Everything that can be known from footers is checked here, before any model is loaded. It decodes no
rows.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.columns import Shape
from pipelines.config import RerankJobConfig
from pipelines.inputs.listing import InputFile, PartitionValue, open_filesystem
from pipelines.inputs.schemas import find_shape
from pipelines.inputs.unify import unify
from pipelines.inputs.units import RowGroup
from pipelines.retries import first_line, retried
from rerank_core import InvalidRequest

_FOOTER_THREADS = 16


def read_footers(
    files: list[InputFile], config: RerankJobConfig
) -> tuple[list[InputFile], Shape, pa.Schema]:
    """Read every footer; return the files with their row groups, the shape, and the schema.

    The schema has the columns that are needed, as `read_units` gives them for every file. A file
    without a readable footer comes back with `bad` saying why. Raises InvalidRequest when no file
    can be read, when a column is missing, or when two files differ in earnest.
    """
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        read = list(pool.map(partial(_read_footer, config=config), files))
    good = [(file.path, schema) for file, schema in read if schema is not None]
    if not good:
        raise InvalidRequest(f"no input file can be read; {read[0][0].path}: {read[0][0].bad}")
    unified = unify(good, partial(is_needed, config=config))
    there = {field.name: field for field in good[0][1]} | {field.name: field for field in unified}
    shape = find_shape(pa.schema(there.values()), config)
    return [file for file, _ in read], shape, unified


def is_needed(name: str, config: RerankJobConfig) -> bool:
    """Say whether the job reads a column."""
    names = config.names
    wanted = (names.query_id, names.query, names.doc_id, names.text, names.candidates)
    return config.columns is None or name in wanted or name in config.columns


def _whole_schema(file: InputFile, meta: pq.FileMetaData) -> pa.Schema:
    """Return the file's columns, and behind them those that only its folders name."""
    schema = meta.schema.to_arrow_schema()
    for name, value in file.partition:
        if name in schema.names:
            raise InvalidRequest(
                f"file {file.path} has a column {name}, and a folder above it says {name}={value}:"
                " rename one of them",
                "input",
            )
        schema = schema.append(pa.field(name, partition_type(value)))
    return schema


def partition_type(value: PartitionValue) -> pa.DataType:
    """Return the type of the column that a partition's folder names."""
    return pa.int64() if isinstance(value, int) else pa.string()


def _read_footer(file: InputFile, config: RerankJobConfig) -> tuple[InputFile, pa.Schema | None]:
    try:
        return retried(lambda: _footer_of(file, config), file.path)
    except PermissionError:
        raise InvalidRequest(f"{file.path}: no permission to read it", "input") from None
    except (pa.ArrowException, OSError) as error:
        return replace(file, bad=reason_of(error)), None


def _footer_of(file: InputFile, config: RerankJobConfig) -> tuple[InputFile, pa.Schema]:
    filesystem, path = open_filesystem(file.path)
    with filesystem.open_input_file(path) as source:
        meta = pq.read_metadata(source)
        schema = _whole_schema(file, meta)
        # Not the footer itself: those of many wide files do not fit in memory.
        groups = _row_groups(meta, "" if config.queries else config.names.candidates)
        return replace(file, footer=footer_hash(source), groups=groups), schema


def reason_of(error: Exception) -> str:
    """Return a short reason for the account, never longer than a line."""
    if isinstance(error, FileNotFoundError):
        return "missing"
    return f"unreadable: {first_line(error)}"


def footer_hash(source: Any) -> str:
    """Return a hash of an open Parquet file's footer, which changes with the file."""
    size = source.size()
    tail = source.read_at(8, size - 8)
    length = int.from_bytes(tail[:4], "little")
    return hashlib.sha256(source.read_at(length + 8, size - length - 8)).hexdigest()[:16]


def _row_groups(meta: pq.FileMetaData, candidates: str) -> tuple[RowGroup, ...]:
    """Return rows, pairs and bytes of each row group; pairs are entries of a candidates list."""
    leaves = [meta.schema.column(place).path for place in range(meta.num_columns)]
    wanted = [
        n for n, path in enumerate(leaves) if candidates and path.startswith(f"{candidates}.")
    ]
    groups = []
    for number in range(meta.num_row_groups):
        group = meta.row_group(number)
        pairs = group.column(wanted[0]).num_values if wanted else group.num_rows
        groups.append(RowGroup(group.num_rows, pairs, group.total_byte_size))
    return tuple(groups)
