"""Makes Parquet of JSON Lines, CSV, Arrow files and TREC runs, so that they can be cut into units.

The driver converts them one by one with pyarrow's own readers, block by block; ids and texts of CSV
are text as they stand. It does not know what a job does with the rows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from pipelines.columns import ColumnNames
from pipelines.commits.store import Store
from pipelines.config import RerankJobConfig
from pipelines.inputs.left_out import EMPTY, LeftOut
from pipelines.inputs.listing import InputFile
from pipelines.inputs.paths import kind_of, open_filesystem
from pipelines.inputs.trec import trec_batches
from pipelines.inputs.units import Say, silent
from pipelines.retries import first_line
from rerank_core import InvalidRequest

# Behind these words pyarrow's readers repeat what stands in a file.
_VALUES = re.compile(r" conversion error.*|: invalid value.*|(?<=got )(\d+): .*")
# 007, and what has more digits than a number keeps.
_CODE = r"^[+-]?0[0-9]|^[+-]?[0-9]{19,}$"
# How pyarrow's readers say that a file has no rows.
_NOTHING = ("Empty JSON", "Empty CSV")


def as_parquet(
    files: list[InputFile],
    store: Store,
    config: RerankJobConfig,
    left_out: LeftOut,
    *,
    former: pa.Schema | None = None,
    say: Say = silent,
) -> list[InputFile]:
    """Return the files, those that are no Parquet written as Parquet into the job's store first.

    So are files of tables that have deleted rows, without these. A file without a known suffix is a
    TREC run where texts are looked up, else Parquet. One without a row is left out. Columns that
    are text in a `former` schema, of rows to which these are added, are text here. Raises
    InvalidRequest for one that cannot be read, and if there are no rows, nor former ones.
    """
    done = []
    codes = _codes(files) | {field.name for field in former or () if _is_text(field.type)}
    for number, file in enumerate(files):
        run = bool(config.queries) and not kind_of(file.path) and not _begins_as_parquet(file)
        if not run and not file.rows and is_parquet(file):
            done.append(file)
            continue
        say("files to Parquet", number, len(files))
        key = f"_job/input/{number}-{made_name(file)}.parquet"
        size = store.size(key)
        if size is None:
            names = config.names
            batches = trec_batches(file.path, names) if run else as_batches(file, names, codes)
            body = _converted(file.path, batches)
            if body is None:
                left_out.add(EMPTY, file.path)
                continue
            store.replace(key, body)
            size = body.nbytes
        made = replace(file, path=store.address(key), size=size, source=file.path, rows=None)
        done.append(made)
    if not done and former is None:
        raise InvalidRequest(f"{files[0].path} has no rows, nor has another input", "input")
    return done


def made_name(file: InputFile) -> str:
    """Return a name for what is made of a file: of other bytes, or another version, another one."""
    # A run that was killed before its plan was fixed may have read another version.
    what = repr((file.path, file.size, file.snapshot))
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_parquet(file: InputFile) -> bool:
    """Say whether a file is taken for Parquet: by its suffix, or by having none that is known."""
    return bool(file.snapshot) or kind_of(file.path) in ("parquet", "")


def as_batches(
    file: InputFile, names: ColumnNames, codes: Collection[str] = ()
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file that is no Parquet, or of one that has deleted rows without them.

    Ids, texts and `codes` of CSV are text as they stand.
    """
    texts = [names.query_id, names.query, names.doc_id, names.text, *codes]
    yield from file.rows() if file.rows else _batches(file.path, kind_of(file.path), texts)


def _codes(files: list[InputFile]) -> set[str]:
    """Return the columns of CSV files whose values are no numbers, though they look like some."""
    found: set[str] = set()
    for file in (file for file in files if kind_of(file.path) == "csv"):
        try:
            names = next(_batches(file.path, "csv", ())).schema.names
            for batch in _batches(file.path, "csv", names):
                for name, column in zip(names, batch.columns, strict=True):
                    if pc.any(pc.match_substring_regex(column, _CODE)).as_py():
                        found.add(name)
        except (StopIteration, pa.ArrowException, OSError):
            continue  # to be said when its rows are read
    return found


def _begins_as_parquet(file: InputFile) -> bool:
    """Say whether a file without a known suffix is Parquet nevertheless."""
    if file.snapshot:
        return True
    with file.open() as source:
        return source.read(4) == b"PAR1"


def _converted(source: str, batches: Iterable[pa.RecordBatch]) -> memoryview | None:
    """Return a file as Parquet; None if it has no rows, and no columns that could be known."""
    sink = pa.BufferOutputStream()
    writer: Any = None
    try:
        for batch in batches:
            writer = writer or pq.ParquetWriter(sink, batch.schema, compression="zstd")
            writer.write_batch(batch)
    except (pa.ArrowException, OSError) as error:
        if str(error).startswith(_NOTHING):
            return None
        raise InvalidRequest(
            f"{source}: {_without_values(error)}; write it as Parquet, or all lines alike",
            "input",
        ) from None
    if writer is None:
        return None
    writer.close()
    return memoryview(sink.getvalue()).cast("B")


def _without_values(error: Exception) -> str:
    """Return what a reader says of a line, not what the line says."""
    return _VALUES.sub(r"\1", first_line(error))[:80]


def _batches(source: str, kind: str, texts: Iterable[str]) -> Iterator[pa.RecordBatch]:
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
