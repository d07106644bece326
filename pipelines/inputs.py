"""Which files are the input, what shape they have, and how to read a slice of them.

Everything that can be known from footers is checked here, before any model is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipelines.config import ColumnNames, RerankJobConfig, Shape
from pipelines.units import RowGroup, Slice, Unit
from rerank_core import InvalidRequest

_GLOB = set("*?[")
_FOOTER_THREADS = 16


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file: its address, size in bytes, and the hash of its footer ("" if unreadable)."""

    path: str
    size: int
    footer: str = ""
    groups: tuple[RowGroup, ...] = ()
    bad: str = ""


class FileChanged(InvalidRequest):
    """An input file is not the one that the plan was made from."""


def list_files(inputs: tuple[str, ...]) -> list[InputFile]:
    """Return the Parquet files behind paths, folders and globs, sorted within each input.

    Hidden files and those that start with `_` are left out, as Parquet readers do. Raises
    InvalidRequest for an input that has none.
    """
    found: dict[str, InputFile] = {}
    for text in inputs:
        files = sorted(_expand(text), key=lambda file: file.path)
        if not files:
            raise InvalidRequest(f"input {text}: no Parquet file there", "input")
        found.update({file.path: file for file in files})
    return list(found.values())


def _expand(text: str) -> Iterator[InputFile]:
    scheme = text.split("://")[0] + "://" if "://" in text else ""
    base = text
    if _GLOB & set(text):
        base = text[: min(text.index(letter) for letter in _GLOB if letter in text)]
        base = base.rsplit("/", 1)[0] if "/" in base else "."
    filesystem, root = open_filesystem(base)
    info = filesystem.get_file_info(root)
    if info.type == pafs.FileType.NotFound:
        raise InvalidRequest(f"input {text}: there is nothing at {base}", "input")
    if info.type == pafs.FileType.File:
        yield InputFile(text, info.size)
        return
    pattern = open_filesystem(text)[1] if _GLOB & set(text) else None
    for item in filesystem.get_file_info(pafs.FileSelector(root, recursive=True)):
        inner = item.path[len(root) :].lstrip("/")
        hidden = any(part.startswith((".", "_")) for part in inner.split("/"))
        if item.type != pafs.FileType.File or hidden:
            continue
        wanted = _matches(item.path, pattern) if pattern else item.path.endswith(".parquet")
        if wanted:
            yield InputFile(scheme + item.path if scheme != "file://" else item.path, item.size)


def _matches(path: str, pattern: str) -> bool:
    from pathlib import PurePosixPath

    return PurePosixPath(path).match(pattern)


def open_filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    """Return the filesystem of a path or URI (s3://, gs://, hdfs://) and the path in it."""
    if "://" in path:
        filesystem, inner = pafs.FileSystem.from_uri(path)
        return filesystem, inner
    import os.path

    return pafs.LocalFileSystem(), os.path.abspath(path)


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
    schema = good[0][1].schema.to_arrow_schema()
    shape = find_shape(schema, config.names, ids_only=bool(config.queries))
    done = []
    for file, meta in read:
        if meta is not None:
            _check_same(schema, meta.schema.to_arrow_schema(), good[0][0].path, file.path)
            groups = _row_groups(meta, shape, config.names)
            file = InputFile(file.path, file.size, file.footer, groups)
        done.append(file)
    return done, shape, schema


def _read_footer(file: InputFile) -> tuple[InputFile, pq.FileMetaData | None]:
    filesystem, path = open_filesystem(file.path)
    try:
        with filesystem.open_input_file(path) as source:
            meta = pq.read_metadata(source)
            return InputFile(file.path, file.size, _footer_hash(source)), meta
    except PermissionError:
        raise
    except (pa.ArrowException, OSError) as error:
        if is_outage(error):
            raise
        return InputFile(file.path, file.size, bad=reason_of(error)), None


def is_outage(error: Exception) -> bool:
    """Say whether the storage failed, not the file: such an error is never a bad file."""
    missing = isinstance(error, FileNotFoundError)
    return isinstance(error, OSError) and error.errno is not None and not missing


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


def find_shape(schema: pa.Schema, names: ColumnNames, ids_only: bool = False) -> Shape:
    """Recognise pairs or nested from the columns; InvalidRequest says what is missing.

    With `ids_only` the texts are looked up elsewhere, and the input must not have any.
    """
    if ids_only:
        _require(schema, [names.query_id, names.doc_id])
        for name in (names.query, names.text):
            if name in schema.names:
                raise InvalidRequest(
                    f"the input has a column {name} and --queries would add one; drop either",
                    "queries",
                )
        _refuse_taken(set(schema.names), names)
        return "pairs"
    if names.candidates in schema.names:
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
        _refuse_taken(fields, names)
        return "nested"
    _require(schema, [names.query_id, names.query, names.doc_id, names.text])
    _refuse_taken(set(schema.names), names)
    return "pairs"


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


def _refuse_taken(taken: set[str], names: ColumnNames) -> None:
    for option, name in (("score", names.score), ("rank", names.rank)):
        if name in taken:
            raise InvalidRequest(
                f"the input already has a {name}; give the new one another name, for example"
                f" --names.{option} rerank_{option}",
                f"names.{option}",
            )


def _check_same(first: pa.Schema, other: pa.Schema, first_path: str, path: str) -> None:
    if not first.equals(other):
        raise InvalidRequest(
            f"{path} and {first_path} differ in their columns: {set(first) ^ set(other)}", "input"
        )


def read_units(piece: Slice, file: InputFile) -> Iterator[tuple[Unit, pa.Table]]:
    """Decode a slice and yield the rows of each of its units, with bounded memory.

    Raises FileChanged when the file is not the planned one; pyarrow's errors when it is corrupt.
    """
    filesystem, path = open_filesystem(file.path)
    with filesystem.open_input_file(path) as source:
        if source.size() != file.size or _footer_hash(source) != file.footer:
            raise FileChanged(f"{file.path} has changed since the plan was made")
        parquet = pq.ParquetFile(source)
        groups = list(range(piece.first, piece.last))
        size = max(unit.rows for unit in piece.units)
        yield from _cut(parquet.iter_batches(size, groups), piece)


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
